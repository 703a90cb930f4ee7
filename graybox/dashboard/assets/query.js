// The query box in the browser: Enter, suggestions, recent queries, and the bar that says what the grid shows.
(function () {
    const { setText, make, whole } = window.graybox;
    const same = () => window.dash_clientside.no_update;
    const KEPT = "graybox-queries";
    const MOST_KEPT = 30;
    const MOST_SHOWN = 8;
    const WORDS = [
        ["and", "both hold"], ["or", "one of them holds"], ["not", "does not hold"], ["between", "a range, both ends included"],
        ["in", "one of a list"], ["like", "a pattern: % any characters"], ["is null", "has no value"],
        ["sortby", "sorts by columns"], ["desc", "the largest first"], ["limit", "keeps the first rows"],
        ["sample", "some at random: 50 or 10%"], ["show", "tells about the samples"], ["by", "for each value of a column"],
        ["accuracy", "share predicted right"], ["confusion", "which class is taken for which"],
        ["histogram(", "how values are spread"], ["count", "how many"], ["mean(", "of all rows"], ["median(", "of all rows"],
        ["std(", "of all rows"], ["min(", "the smallest"], ["max(", "the largest"], ["quantile(", "of all rows"],
        ["abs(", "without its sign"], ["log(", "natural logarithm"], ["sqrt(", "square root"],
    ].map(([text, about]) => ({ text: text, about: about }));
    const KEYWORDS = new Set([
        "where", "and", "or", "not", "between", "in", "like", "is", "null", "true", "false", "sortby", "sort", "order", "by",
        "asc", "desc", "limit", "sample", "show", "tag",
    ]);
    let known = { columns: [], tags: [], classes: [], splits: [] };
    let natural = false;
    let offered = []; // what the list shows: {text, about, whole}
    let chosen = -1; // which of them the arrows have reached
    let asked = 0;
    let shownRun = "";
    let viewId = "";
    let drawn = false;

    const field = () => document.getElementById("query");
    const list = () => document.getElementById("query-suggestions");
    const set = (id, props) => window.dash_clientside.set_props(id, props);

    // -- asking
    function ask(text) {
        close();
        if (!text.trim()) return clear();
        asked += 1;
        const box = document.getElementById("query-within");
        set("query-asked", { data: {
            text: text, natural: natural, within: !!(box && box.checked && viewId), run: shownRun, count: asked,
        } });
    }

    function clear() {
        set("samples-view", { data: null });
        set("query", { value: "" });
        set("query-problem", { className: "gb-query-problem gb-hidden" });
        set("query-proposals", { className: "gb-hidden" });
        set("samples-analysis", { className: "gb-card gb-analysis gb-hidden" });
    }

    // -- recent queries: of this browser, the latest first
    function recent() {
        try { return JSON.parse(window.localStorage.getItem(KEPT) || "[]").filter((item) => item && item.text); }
        catch (error) { return []; }
    }

    function rememberQuery(answer) {
        if (!answer) return same();
        if (!answer.ok) {
            const input = field();
            if (answer.position !== null && input && input.value === answer.text) {
                const units = Array.from(answer.text).slice(0, answer.position).join("").length; // of UTF-16
                if (document.activeElement === input) input.setSelectionRange(units, units);
            }
            return same();
        }
        const item = { text: answer.text, natural: !!answer.natural };
        const others = recent().filter((held) => held.text !== item.text || !!held.natural !== item.natural);
        try { window.localStorage.setItem(KEPT, JSON.stringify([item, ...others].slice(0, MOST_KEPT))); }
        catch (error) { /* storage is off or full */ }
        return same();
    }

    function offerRecent() {
        const found = recent();
        show(found.map((item) => ({ text: item.text, about: item.natural ? "plain English" : "", whole: true, item: item })),
            found.length ? "" : "Queries that you ask are kept here, in this browser.");
    }

    // -- suggestions for the word before the cursor
    const quoted = (text) => "'" + text.replaceAll("'", "''") + "'";

    function columnText(name) {
        const plain = /^[A-Za-z_][A-Za-z0-9_]*$/.test(name) && !KEYWORDS.has(name.toLowerCase()) && !/^p\d+$/i.test(name);
        return plain ? name : '"' + name.replaceAll('"', '""') + '"';
    }

    function wordAt(text, at) {
        const before = text.slice(0, at);
        const marks = (before.match(/'/g) || []).length;
        if (marks % 2) {
            const start = before.lastIndexOf("'");
            return { start: start, word: before.slice(start + 1), kind: "text" };
        }
        const tag = before.match(/tag:([A-Za-z0-9_]*)$/);
        if (tag) return { start: at - tag[1].length, word: tag[1], kind: "tag" };
        const word = before.match(/[A-Za-z_][A-Za-z0-9_]*$/);
        return word ? { start: at - word[0].length, word: word[0], kind: "word" } : null;
    }

    function candidates(found) {
        if (found.kind === "text") {
            const texts = [...new Set([...known.classes, ...known.splits])];
            return texts.map((text) => ({ text: quoted(text), about: known.splits.includes(text) ? "split" : "class", key: text }));
        }
        const tags = known.tags.map((tag) => {
            const text = /^[A-Za-z0-9_]+$/.test(tag) ? tag : quoted(tag);
            return { text: found.kind === "tag" ? text : "tag:" + text, about: "tag", key: tag };
        });
        if (found.kind === "tag") return tags;
        const columns = known.columns.map((column) => ({
            text: columnText(column.name), about: column.description || column.kind, key: column.name,
        }));
        return [...columns, ...tags, ...WORDS];
    }

    function suggest() {
        const input = field();
        const found = natural ? null : wordAt(input.value, input.selectionStart);
        if (!found || (found.kind === "word" && !found.word)) return close();
        const word = found.word.toLowerCase();
        const all = candidates(found).map((item) => ({ ...item, at: found.start, key: (item.key || item.text).toLowerCase() }));
        const begins = all.filter((item) => item.key.startsWith(word) || item.text.toLowerCase().startsWith(word));
        const has = word.length > 1 ? all.filter((item) => !begins.includes(item) && item.key.includes(word)) : [];
        const shown = [...begins, ...has].slice(0, MOST_SHOWN);
        if (!shown.length || (shown.length === 1 && shown[0].text.toLowerCase() === word)) return close();
        show(shown, "");
    }

    function accept(item) {
        const input = field();
        if (item.whole) {
            set("query-natural", { checked: item.item ? item.item.natural : false });
            natural = item.item ? item.item.natural : false;
            write(item.text, item.text.length);
            return;
        }
        // A quote that stands behind the cursor already is not written twice.
        const rest = input.value.slice(input.selectionStart);
        const tail = item.text.endsWith("'") && rest.startsWith("'") ? rest.slice(1) : rest;
        write(input.value.slice(0, item.at) + item.text + tail, item.at + item.text.length);
    }

    function write(text, at) {
        close();
        set("query", { value: text });
        window.setTimeout(() => {
            const input = field();
            input.focus();
            if (input.value === text) input.setSelectionRange(at, at);
        }, 30);
    }

    function show(items, empty) {
        offered = items;
        chosen = -1;
        const place = list();
        place.replaceChildren(...items.map((item, index) => {
            const row = make("div", "gb-suggestion", { role: "option", id: "query-option-" + index, "aria-selected": "false" });
            row.append(make("code", ""), make("span", "gb-muted"));
            setText(row.children[0], item.text);
            setText(row.children[1], item.about || "");
            row.addEventListener("mousedown", (event) => { // before the field loses the focus
                event.preventDefault();
                accept(item);
            });
            return row;
        }));
        if (!items.length && empty) {
            const row = make("div", "gb-muted gb-small gb-suggestion");
            setText(row, empty);
            place.append(row);
        }
        place.classList.toggle("gb-hidden", !place.children.length);
        field().setAttribute("aria-expanded", place.children.length ? "true" : "false");
    }

    function close() {
        if (!list()) return;
        offered = [];
        chosen = -1;
        list().classList.add("gb-hidden");
        field().setAttribute("aria-expanded", "false");
        field().removeAttribute("aria-activedescendant");
    }

    function reach(next) {
        chosen = (next + offered.length) % offered.length;
        [...list().children].forEach((row, index) => row.setAttribute("aria-selected", index === chosen ? "true" : "false"));
        list().children[chosen].scrollIntoView({ block: "nearest" });
        field().setAttribute("aria-activedescendant", "query-option-" + chosen);
    }

    function press(event) {
        if (event.isComposing) return;
        const open = offered.length > 0;
        if (event.key === "Enter" && !event.shiftKey) {
            event.preventDefault();
            if (open && chosen >= 0) accept(offered[chosen]);
            else ask(field().value);
        } else if (event.key === "Tab" && open && !event.shiftKey) {
            event.preventDefault();
            accept(offered[Math.max(chosen, 0)]);
        } else if (event.key === "Escape") close();
        else if (open && (event.key === "ArrowDown" || event.key === "ArrowUp")) {
            event.preventDefault();
            reach(event.key === "ArrowDown" ? chosen + 1 : Math.max(chosen, 0) - 1);
        } else if (event.key === "ArrowDown" && !field().value) {
            event.preventDefault();
            offerRecent();
        }
    }

    // Listened to at the document: the elements come and go with the page.
    document.addEventListener("keydown", (event) => event.target === field() && press(event), true);
    document.addEventListener("input", (event) => event.target === field() && suggest());
    document.addEventListener("focusout", (event) => event.target === field() && window.setTimeout(() => {
        if (document.activeElement !== field()) close();
    }, 150));
    document.addEventListener("click", (event) => {
        const target = event.target instanceof Element ? event.target : null;
        if (!target) return;
        const example = target.closest(".gb-example");
        if (example) {
            set("query-natural", { checked: false });
            natural = false;
            set("query", { value: example.dataset.query });
            set("query-help-popover", { opened: false });
            ask(example.dataset.query);
        } else if (target.closest("#query-run")) ask(field().value);
        else if (target.closest("#view-clear")) clear();
        else if (target.closest("#analysis-close")) set("samples-analysis", { className: "gb-card gb-analysis gb-hidden" });
        else if (target.closest("#query-recent")) {
            field().focus();
            offerRecent();
        }
    });

    function suggestFrom(overview, inEnglish) {
        known = Object.assign({ columns: [], tags: [], classes: [], splits: [] }, overview || {});
        natural = !!inEnglish;
        return same();
    }

    // -- what the grid shows
    function words(view) {
        if (!view.matches) return "No sample of " + whole(view.among) + " matches";
        if (view.matches === view.among) return "All " + whole(view.among) + " samples match";
        return whole(view.matches) + " of " + whole(view.among) + (view.matches === 1 ? " matches" : " match");
    }

    function showView(view, status, focus) {
        shownRun = (focus && focus.run) || (status && status.run) || shownRun;
        const here = view && view.run === shownRun ? view : null;
        const fresh = (here ? here.id : "") !== viewId;
        if (!fresh && drawn) return Array(6).fill(same()); // a status that changes nothing here
        drawn = true;
        viewId = here ? here.id : "";
        if (!here) return ["gb-filters", "gb-view-bar gb-hidden", "", "", "gb-text-button gb-hidden", false];
        const some = here.queries.some((query) => / sample \d/.test(" " + query));
        return [
            "gb-filters gb-hidden", "gb-view-bar", words(here), here.queries.map((query) => query || "all samples").join("  ›  "),
            "gb-text-button" + (some ? "" : " gb-hidden"), false,
        ];
    }

    window.dash_clientside.graybox = Object.assign(window.dash_clientside.graybox || {}, {
        rememberQuery, suggestFrom, showView,
    });
})();
