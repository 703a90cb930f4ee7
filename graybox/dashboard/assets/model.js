// The model page in the browser: the list of layers, and what is selected. Tiles and table: neurons.js.
(function () {
    const { keyed, setText, make, whole } = window.graybox;
    const same = () => window.dash_clientside.no_update;
    const none = (run, layer) => ({ run: run, layer: layer, neurons: [], query: null });
    const closed = new Set();
    const CHIPS = ["frozen", "dead", "overfit", "redundant"];
    // Shared with neurons.js. `current` decides what is selected, not the store: what Dash hands over may be older than
    // the last click.
    const model = (window.graybox.model = { current: none("", ""), count: 0, select: select, percent: percent });

    function percent(rate) {
        return (100 * rate).toFixed(rate > 0 && rate < 0.1 ? 1 : 0) + " %";
    }

    function chooseLayer(id) {
        const query = new URLSearchParams(window.location.search);
        query.set("layer", id);
        window.dash_clientside.set_props("url", { search: "?" + query.toString() });
    }

    function keep(next) {
        model.current = next; // now, or a second click before the page is drawn anew would forget the first
        window.dash_clientside.set_props("neuron-selection", { data: next });
    }

    function select(neurons) {
        keep({ ...none(model.current.run, model.current.layer), neurons: [...neurons].sort((a, b) => a - b) });
    }

    // -- layers
    function groups(layers) {
        const found = [];
        for (const layer of layers) {
            const dot = layer.name.indexOf(".");
            const name = dot > 0 ? layer.name.slice(0, dot) : "";
            const last = found[found.length - 1];
            if (last && last.name === name) last.layers.push(layer);
            else found.push({ name: name, key: name + "#" + found.length, layers: [layer] });
        }
        return found;
    }

    function makeGroup(group) {
        const box = make("details", "gb-layer-group");
        box.open = !closed.has(group.key);
        const head = make("summary", "");
        head.append(make("span", "gb-group-name"), make("span", "gb-muted gb-small"));
        box.append(head, make("div", "gb-layer-rows"));
        box.addEventListener("toggle", () => (box.open ? closed.delete(group.key) : closed.add(group.key)));
        return box;
    }

    function makeLayer(layer) {
        const row = make("button", "gb-layer", { type: "button", role: "treeitem" });
        row.addEventListener("click", () => chooseLayer(row.dataset.key));
        const words = make("span", "gb-layer-words");
        const chips = make("span", "gb-layer-chips");
        chips.append(...CHIPS.map((word) => make("span", "gb-word-" + word)));
        words.append(make("span", "gb-layer-name"), make("span", "gb-layer-facts gb-muted"), chips);
        const right = make("span", "gb-layer-right");
        const rate = make("span", "gb-layer-rate");
        rate.append(make("span", "gb-layer-fill"));
        right.append(make("span", "gb-layer-count gb-number"), rate);
        row.append(words, right);
        return row;
    }

    function drawLayer(row, layer, group) {
        row.id = "layer-" + layer.id;
        const active = String(layer.id) === String(model.current.layer);
        row.classList.toggle("gb-layer-active", active);
        row.setAttribute("aria-selected", active ? "true" : "false");
        row.title = layer.name + ": " + layer.type + ", " + layer.parameters + " parameters, trigger rate " +
            percent(layer.train) + " in training, " + percent(layer.eval) + " in evaluation";
        const name = group.name && layer.name !== group.name ? layer.name.slice(group.name.length + 1) : layer.name;
        setText(row.querySelector(".gb-layer-name"), name);
        setText(row.querySelector(".gb-layer-facts"), layer.type + " · " + layer.shape + (layer.output ? " · output" : ""));
        setText(row.querySelector(".gb-layer-count"), percent(layer.train));
        row.querySelector(".gb-layer-fill").style.width = (100 * layer.train).toFixed(1) + "%";
        CHIPS.forEach((word, place) => {
            const chip = row.querySelector(".gb-layer-chips").children[place];
            setText(chip, layer[word] + " " + word);
            chip.hidden = !layer[word];
        });
    }

    function drawLayers(layers) {
        const list = document.getElementById("layer-list");
        if (!list) return;
        keyed(list, groups(layers), (group) => group.key, makeGroup, (box, group) => {
            box.classList.toggle("gb-no-group", !group.name);
            if (!group.name) box.open = true;
            setText(box.querySelector(".gb-group-name"), group.name);
            setText(box.querySelector("summary .gb-muted"), group.layers.length + " layers");
            keyed(box.querySelector(".gb-layer-rows"), group.layers, (layer) => layer.id, makeLayer,
                (row, layer) => drawLayer(row, layer, group));
        });
        const neurons = layers.reduce((sum, layer) => sum + layer.neurons, 0);
        setText(document.getElementById("model-size"), layers.length + " layers · " + whole(neurons) + " neurons");
    }

    function renderModel(layers, neurons, selection, focus, columns) {
        if (!neurons) return same();
        const here = model.current;
        const other = here.run !== neurons.run || String(here.layer) !== String(neurons.layer);
        if (other || model.count !== neurons.neurons.length) {
            // Another layer, or this one grew or shrank, here or in another tab: the numbers mean other neurons now.
            const query = here.run === neurons.run ? here.query : null;
            model.current = { ...none(neurons.run, neurons.layer), query: query };
            model.count = neurons.neurons.length;
            window.dash_clientside.set_props("neuron-selection", { data: model.current });
            window.graybox.neurons.forget();
        }
        if (layers) drawLayers(layers);
        window.graybox.neurons.draw(neurons, columns);
        return same();
    }

    // -- selecting
    function amountOf(end, amount, unit) {
        if (!end) return null;
        const number = Number(String(amount).replace(",", "."));
        const good = unit === "percent" ? number > 0 && number <= 100 : number >= 1 && Number.isInteger(number);
        return good ? number : NaN;
    }

    const FIELDS = {
        trigger_rate: "train", eval_trigger_rate: "eval", mean_activation: "mean", std_activation: "std",
        weight_norm: "norm", gradient_norm: "gradient", relative_change: "change", age: "age",
    };

    function byQuery(neurons, health, end, number, unit, statistic) {
        const found = neurons.filter((neuron) => !health || neuron.health === health);
        if (!end) return found;
        const field = FIELDS[statistic];
        const known = found.filter((neuron) => neuron[field] !== null && neuron[field] !== undefined);
        known.sort((a, b) => (end === "highest" ? b[field] - a[field] : a[field] - b[field]));
        const many = unit === "percent" ? Math.max(1, Math.floor((number * known.length) / 100)) : number;
        return known.slice(0, many);
    }

    function selectNeurons(...given) {
        const [neurons, scope, health, end, amount, unit, statistic] = given.slice(6);
        if (!neurons) return same();
        const triggered = (window.dash_clientside.callback_context.triggered || []).map((item) => item.prop_id)[0] || "";
        const what = triggered.split(".")[0];
        let next = none(neurons.run, neurons.layer);
        let chosen = [];
        if (what === "model-edited") window.graybox.neurons.forget();
        if (what === "select-all") chosen = neurons.neurons;
        else if (what === "select-dead" || what === "select-redundant") {
            chosen = neurons.neurons.filter((neuron) => neuron.health === what.slice("select-".length));
        } else if (what === "select-apply") {
            const number = amountOf(end, amount, unit);
            const field = document.getElementById("select-amount");
            if (field) field.setAttribute("aria-invalid", Number.isNaN(number) ? "true" : "false");
            if (Number.isNaN(number)) return same();
            if (scope === "all") {
                next.query = { health: health, amount: number, unit: unit, statistic: statistic, highest: end === "highest" };
            } else chosen = byQuery(neurons.neurons, health, end, number, unit, statistic);
        }
        next.neurons = chosen.map((neuron) => neuron.id).sort((a, b) => a - b);
        model.current = next;
        return next;
    }

    function words(selection) {
        const query = selection.query;
        if (query) {
            const many = query.unit === "percent" ? query.amount + " %" : query.amount;
            const some = query.amount ? (query.highest ? "highest " : "lowest ") + many + " " : "all ";
            return some.charAt(0).toUpperCase() + some.slice(1) + (query.health ? query.health + " " : "") + "of all layers";
        }
        const count = (selection.neurons || []).length;
        return count === 0 ? "None selected" : count === 1 ? "Neuron " + selection.neurons[0] : count + " selected";
    }

    const WITHOUT_SELECTION = new Set(["freeze-incoming", "sort-neurons", "add-neurons"]);
    const BUTTONS = [
        "freeze", "unfreeze", "freeze-bias", "freeze-incoming", "reinitialise", "zerofy", "set-learning-rate",
        "remove-neurons", "add-neurons", "sort-neurons",
    ];

    function enableNeuronTools(selection, status, neurons) {
        const chosen = selection || none("", "");
        const offline = !(status && status.connected) || !neurons;
        const nothing = !(chosen.neurons || []).length && !chosen.query;
        return [words(chosen), ...BUTTONS.map((name) => offline || (nothing && !WITHOUT_SELECTION.has(name)))];
    }

    const enableApply = (asked, allowed) => !asked || !asked.possible || !(asked.exact || allowed);

    window.dash_clientside.graybox = Object.assign(window.dash_clientside.graybox || {}, {
        renderModel, selectNeurons, enableNeuronTools, enableApply,
    });
})();
