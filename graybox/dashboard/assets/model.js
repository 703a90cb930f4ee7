// The model page in the browser: list of layers, tiles and table of neurons, selection.
(function () {
    const { keyed, setText, make, whole } = window.graybox;
    const same = () => window.dash_clientside.no_update;
    let api = null;
    let current = { run: "", layer: "", neurons: [] };
    let rows = [];
    let anchor = null;
    const closed = new Set();
    const BY_HAND = new Set(["checkboxSelected", "rowClicked", "spaceKey", "uiSelectAll", "keyboardSelectAll"]);

    const percent = (rate) => (100 * rate).toFixed(rate > 0 && rate < 0.1 ? 1 : 0) + " %";

    function chooseLayer(id) {
        const query = new URLSearchParams(window.location.search);
        query.set("layer", id);
        window.dash_clientside.set_props("url", { search: "?" + query.toString() });
    }

    function select(neurons) {
        const next = { run: current.run, layer: current.layer, neurons: [...neurons].sort((a, b) => a - b) };
        current = next; // now, or a second click before the page is drawn anew would forget the first
        window.dash_clientside.set_props("neuron-selection", { data: next });
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
        words.append(make("span", "gb-layer-name"), make("span", "gb-layer-facts gb-muted"));
        const right = make("span", "gb-layer-right");
        const rate = make("span", "gb-layer-rate");
        rate.append(make("span", "gb-layer-fill"));
        right.append(make("span", "gb-layer-count gb-number"), rate);
        const chips = make("span", "gb-layer-chips");
        chips.append(make("span", "gb-chip gb-chip-frozen"), make("span", "gb-chip gb-chip-dead"));
        row.append(words, chips, right);
        return row;
    }

    function drawLayer(row, layer, group) {
        row.id = "layer-" + layer.id;
        const active = String(layer.id) === String(current.layer);
        row.classList.toggle("gb-layer-active", active);
        row.setAttribute("aria-selected", active ? "true" : "false");
        row.title = layer.name + ": " + layer.type + ", " + layer.parameters + " parameters, trigger rate " +
            percent(layer.train) + " in training, " + percent(layer.eval) + " in evaluation";
        const name = group.name && layer.name !== group.name ? layer.name.slice(group.name.length + 1) : layer.name;
        setText(row.querySelector(".gb-layer-name"), name);
        setText(row.querySelector(".gb-layer-facts"), layer.type + " · " + layer.shape + (layer.output ? " · output" : ""));
        setText(row.querySelector(".gb-layer-count"), percent(layer.train));
        row.querySelector(".gb-layer-fill").style.width = (100 * layer.train).toFixed(1) + "%";
        const [frozen, dead] = row.querySelector(".gb-layer-chips").children;
        setText(frozen, layer.frozen + " frozen");
        setText(dead, layer.dead + " dead");
        frozen.hidden = !layer.frozen;
        dead.hidden = !layer.dead;
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

    // -- neurons
    function clickTile(event) {
        const id = Number(event.currentTarget.dataset.neuron);
        const chosen = new Set(current.neurons);
        if (event.shiftKey && anchor !== null) {
            for (let i = Math.min(anchor, id); i <= Math.max(anchor, id); i += 1) chosen.add(i);
        } else if (chosen.has(id)) chosen.delete(id);
        else chosen.add(id);
        anchor = id;
        select(chosen);
    }

    function makeTile(neuron) {
        const tile = make("button", "neuron-tile", { type: "button" });
        tile.addEventListener("click", clickTile);
        return tile;
    }

    function drawTile(tile, neuron) {
        const on = current.neurons.includes(neuron.id);
        tile.id = "neuron-tile-" + neuron.id;
        tile.dataset.neuron = neuron.id;
        tile.dataset.health = neuron.health;
        tile.dataset.frozen = neuron.frozen;
        tile.style.setProperty("--rate", Math.min(1, Math.sqrt(Math.max(neuron.train, 0))).toFixed(3));
        tile.setAttribute("aria-pressed", on ? "true" : "false");
        const label = "Neuron " + neuron.id + ", " + neuron.health + ", trigger rate " + percent(neuron.train);
        tile.setAttribute("aria-label", label);
        tile.title = label + (neuron.rate !== 1 ? ", learning rate × " + neuron.rate : "");
        setText(tile, String(neuron.id));
    }

    function drawNeurons(data) {
        setText(document.getElementById("layer-title"), data.name + " · " + whole(data.neurons.length) + " neurons");
        const tiles = document.getElementById("neuron-tiles");
        tiles.classList.toggle("gb-tiles-small", data.neurons.length > 160);
        keyed(tiles, data.neurons, (neuron) => data.layer + "/" + neuron.id, makeTile, drawTile);
    }

    async function drawTable(data) {
        if (data.neurons !== rows) {
            rows = data.neurons;
            window.dash_clientside.set_props("neuron-grid", { rowData: rows });
        }
        if (!api || api.isDestroyed()) {
            api = await window.dash_ag_grid.getApiAsync("neuron-grid");
            api.addEventListener("selectionChanged", (event) => {
                if (!BY_HAND.has(event.source)) return;
                select(new Set(api.getSelectedRows().map((row) => row.id)));
            });
            api.addEventListener("rowDataUpdated", markRows);
        }
        markRows();
    }

    function markRows() {
        if (!api || api.isDestroyed()) return;
        const on = [], off = [];
        api.forEachNode((node) => {
            const wanted = current.neurons.includes(node.data.id);
            if (wanted !== !!node.isSelected()) (wanted ? on : off).push(node);
        });
        if (on.length) api.setNodesSelected({ nodes: on, newValue: true, source: "api" });
        if (off.length) api.setNodesSelected({ nodes: off, newValue: false, source: "api" });
    }

    function renderModel(layers, neurons, selection, focus) {
        if (!neurons) return same();
        // `current` decides, not the store: what Dash hands over may be older than the last click.
        if (current.run !== neurons.run || String(current.layer) !== String(neurons.layer)) {
            current = { run: neurons.run, layer: neurons.layer, neurons: [] }; // of another run, too, nothing is chosen
            anchor = null;
            window.dash_clientside.set_props("neuron-selection", { data: current });
        }
        if (layers) drawLayers(layers);
        drawNeurons(neurons);
        drawTable(neurons);
        return same();
    }

    function selectNeurons(all, none, dead, neurons) {
        if (!neurons) return same();
        const triggered = (window.dash_clientside.callback_context.triggered || []).map((item) => item.prop_id)[0] || "";
        const chosen = neurons.neurons.filter((neuron) => {
            if (triggered.startsWith("select-all")) return true;
            return triggered.startsWith("select-dead") && neuron.health === "dead";
        });
        current = { run: neurons.run, layer: neurons.layer, neurons: chosen.map((neuron) => neuron.id) };
        return current;
    }

    function enableNeuronTools(selection, status) {
        const count = ((selection || {}).neurons || []).length;
        const off = !count || !(status && status.connected);
        const words = count === 0 ? "None selected" : count === 1 ? "Neuron " + selection.neurons[0] : count + " selected";
        return [words, off, off, off, off];
    }

    window.dash_clientside.graybox = Object.assign(window.dash_clientside.graybox || {}, {
        renderModel, selectNeurons, enableNeuronTools,
    });

    const cells = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
    const h = (...parts) => window.React.createElement(...parts);

    cells.RateBar = function (props) {
        const value = Number(props.value || 0);
        return h("span", { className: "gb-bar-cell" },
            h("span", { className: "gb-bar gb-bar-rate", style: { width: "calc((100% - 52px) * " + value.toFixed(4) + ")" } }),
            h("span", { className: "gb-bar-text" }, percent(value)));
    };

    cells.HealthChip = function (props) {
        return props.value ? h("span", { className: "gb-chip gb-chip-" + props.value }, props.value) : null;
    };
})();
