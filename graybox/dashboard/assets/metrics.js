// The metrics page in the browser: list of runs, cards, zoom.
(function () {
    const { keyed, setText, make } = window.graybox;
    const same = () => window.dash_clientside.no_update;
    let choice = null;

    function toggle(key, on) {
        if (choice === null) {
            try { choice = JSON.parse(window.localStorage.getItem("runs-choice") || "null") || {}; }
            catch (error) { choice = {}; }
        }
        choice = Object.assign({}, choice, { [key]: on });
        window.dash_clientside.set_props("runs-choice", { data: choice });
    }

    function makeRun(row) {
        const label = make("label", "gb-run");
        const box = make("input", "gb-run-box", { type: "checkbox" });
        box.addEventListener("change", () => toggle(label.dataset.key, box.checked));
        const words = make("span", "gb-run-words");
        words.append(make("span", "gb-run-name"), make("span", "gb-run-facts gb-muted"));
        label.append(box, make("span", "gb-run-colour"), words, make("span", "gb-run-state"));
        return label;
    }

    function drawRun(label, row) {
        const [box, colour, words, state] = label.children;
        box.id = row.id;
        if (box.checked !== row.shown) box.checked = row.shown;
        colour.style.background = row.colour;
        label.title = row.title;
        label.classList.toggle("gb-run-off", !row.shown);
        setText(words.children[0], row.name);
        setText(words.children[1], row.facts);
        setText(state, row.state);
        state.className = "gb-run-state gb-chip gb-chip-" + row.state;
        state.hidden = !row.state;
    }

    function renderRuns(rows) {
        const list = document.getElementById("runs-list");
        if (!list || !rows) return same();
        keyed(list, rows, (row) => row.key, makeRun, drawRun);
        return String(rows.length);
    }

    function sparkline(values) {
        const width = 96, height = 30;
        const low = Math.min(...values), high = Math.max(...values);
        const span = high - low || 1;
        return values.map((value, index) => {
            const x = (index / Math.max(values.length - 1, 1)) * width;
            const y = height - 2 - ((value - low) / span) * (height - 4);
            return (index ? "L" : "M") + x.toFixed(1) + " " + y.toFixed(1);
        }).join("");
    }

    function makeCard() {
        const card = make("div", "gb-card gb-summary");
        const left = make("div");
        left.append(make("div", "gb-summary-label gb-muted"), make("div", "gb-summary-value"));
        const right = make("div", "gb-summary-right");
        const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
        svg.setAttribute("viewBox", "0 0 96 30");
        svg.setAttribute("aria-hidden", "true");
        svg.append(document.createElementNS("http://www.w3.org/2000/svg", "path"));
        right.append(make("span", "gb-change"), svg);
        card.append(left, right);
        return card;
    }

    function drawCard(card, item) {
        setText(card.querySelector(".gb-summary-label"), item.label);
        setText(card.querySelector(".gb-summary-value"), item.value);
        const change = card.querySelector(".gb-change");
        setText(change, item.change);
        change.className = "gb-change gb-change-" + item.mood;
        change.hidden = !item.change;
        card.querySelector("path").setAttribute("d", item.spark.length > 3 ? sparkline(item.spark) : "");
    }

    function renderCards(cards) {
        const place = document.getElementById("summary-cards");
        if (!place || !cards) return same();
        keyed(place, cards, (card) => card.label, makeCard, drawCard);
        return String(cards.length);
    }

    // What the user zoomed to, so that the server can send that part as fine as it has it.
    function rememberZoom(changes, ids, zoom) {
        const next = Object.assign({}, zoom);
        let changed = false;
        const triggered = (window.dash_clientside.callback_context.triggered || []).map((item) => item.prop_id);
        ids.forEach((id, index) => {
            const change = changes[index];
            if (!change || !triggered.some((text) => text.includes(JSON.stringify(id.metric)))) return;
            const view = Object.assign({}, next[id.metric]);
            const before = JSON.stringify(view);
            for (const axis of ["x", "y"]) {
                const low = change[axis + "axis.range[0]"], high = change[axis + "axis.range[1]"];
                const both = change[axis + "axis.range"];
                if (low !== undefined && high !== undefined) view[axis] = [Number(low), Number(high)];
                else if (both) view[axis] = both.map(Number);
                else if (change[axis + "axis.autorange"]) delete view[axis];
            }
            if (JSON.stringify(view) === before) return;
            changed = true;
            if (Object.keys(view).length) next[id.metric] = view;
            else delete next[id.metric];
        });
        return changed ? next : same();
    }

    function showSmoothing(value) {
        return Number(value || 0).toFixed(2);
    }

    window.dash_clientside.graybox = Object.assign(window.dash_clientside.graybox || {}, {
        renderRuns, renderCards, rememberZoom, showSmoothing,
    });
})();
