// Neurons in the browser: tiles, table, and which one the side panel shows.
(function () {
    const { keyed, setText, make, whole, model } = window.graybox;
    const OPTIONAL = ["recent", "mean", "std", "eval_mean", "eval_std", "norm", "gradient", "change", "age", "rate"];
    let api = null;
    let rows = [];
    let anchor = null;
    let shown = null; // the neuron in the side panel
    let visible = ""; // the optional columns the table shows

    function show(neuron) {
        const { run, layer } = model.current;
        if (shown && shown.run === run && shown.layer === layer && shown.neuron === neuron) return;
        shown = { run: run, layer: layer, neuron: neuron };
        window.dash_clientside.set_props("neuron-shown", { data: shown });
        mark();
    }

    // The numbers mean other neurons now.
    function forget() {
        anchor = null;
        if (!shown) return;
        shown = null;
        window.dash_clientside.set_props("neuron-shown", { data: null });
    }

    function mark() {
        document.querySelectorAll("#neuron-tiles .gb-tile-shown").forEach((tile) => tile.classList.remove("gb-tile-shown"));
        const tile = shown && document.getElementById("neuron-tile-" + shown.neuron);
        if (tile) tile.classList.add("gb-tile-shown");
    }

    function clickTile(event) {
        const id = Number(event.currentTarget.dataset.neuron);
        const chosen = new Set(model.current.neurons);
        if (event.shiftKey && anchor !== null) {
            for (let i = Math.min(anchor, id); i <= Math.max(anchor, id); i += 1) chosen.add(i);
        } else if (chosen.has(id)) chosen.delete(id);
        else chosen.add(id);
        anchor = id;
        model.select(chosen);
        show(id);
    }

    function makeTile() {
        const tile = make("button", "neuron-tile", { type: "button" });
        tile.addEventListener("click", clickTile);
        return tile;
    }

    function drawTile(tile, neuron, chosen) {
        const on = chosen.has(neuron.id);
        tile.id = "neuron-tile-" + neuron.id;
        tile.dataset.neuron = neuron.id;
        tile.dataset.health = neuron.health;
        tile.dataset.frozen = neuron.frozen;
        tile.style.setProperty("--rate", Math.min(1, Math.sqrt(Math.max(neuron.train, 0))).toFixed(3));
        tile.setAttribute("aria-pressed", on ? "true" : "false");
        const label = "Neuron " + neuron.id + ", " + neuron.health + ", trigger rate " + model.percent(neuron.train);
        tile.setAttribute("aria-label", label);
        tile.title = label + (neuron.twin !== null ? ", nearly parallel to neuron " + neuron.twin : "") +
            (neuron.bias_frozen ? ", bias frozen" : "") + (neuron.rate !== 1 ? ", learning rate × " + neuron.rate : "");
        setText(tile, String(neuron.id));
    }

    function drawTiles(data) {
        const held = data.frozen_incoming ? " · " + whole(data.frozen_incoming) + " incoming frozen" : "";
        setText(document.getElementById("layer-title"), data.name + " · " + whole(data.neurons.length) + " neurons" + held);
        const tiles = document.getElementById("neuron-tiles");
        const chosen = new Set(model.current.neurons);
        tiles.classList.toggle("gb-tiles-small", data.neurons.length > 160);
        tiles.classList.toggle("gb-tiles-query", !!model.current.query);
        keyed(tiles, data.neurons, (neuron) => data.layer + "/" + neuron.id, makeTile,
            (tile, neuron) => drawTile(tile, neuron, chosen));
        mark();
    }

    // What the hand does to the table is taken while its event is handled: the grid tells of a selection only later, and
    // until then what was chosen before may have been marked again, by a poll or by the component around the grid, which
    // selects anew what it last heard of.
    function watchHand(table) {
        const ids = () => new Set(api && !api.isDestroyed() ? api.getSelectedRows().map((row) => row.id) : []);
        let before = null;
        if (table.dataset.watched) return; // the grid was made anew inside
        table.dataset.watched = "yes";
        for (const kind of ["click", "change", "keydown"]) {
            table.addEventListener(kind, () => (before = ids()), true);
            table.addEventListener(kind, () => {
                const now = ids();
                const added = [...now].filter((id) => !before.has(id));
                const gone = new Set([...before].filter((id) => !now.has(id)));
                if (!added.length && !gone.size) return;
                model.select(new Set([...model.current.neurons.filter((id) => !gone.has(id)), ...added]));
            });
        }
    }

    async function ready() {
        if (api && !api.isDestroyed()) return;
        const found = await window.dash_ag_grid.getApiAsync("neuron-grid");
        if (found === api) return; // somebody else waited for it too, and was first
        api = found;
        visible = "";
        watchHand(document.getElementById("neuron-grid"));
        api.addEventListener("selectionChanged", markRows);
        api.addEventListener("rowClicked", (event) => event.data && show(event.data.id));
        api.addEventListener("rowDataUpdated", markRows);
    }

    async function drawTable(data, columns) {
        if (data.neurons !== rows) {
            rows = data.neurons;
            window.dash_clientside.set_props("neuron-grid", { rowData: rows });
        }
        await ready();
        const wanted = columns || [];
        if (wanted.join(" ") !== visible) {
            visible = wanted.join(" ");
            api.setColumnsVisible(OPTIONAL.filter((field) => wanted.includes(field)), true);
            api.setColumnsVisible(OPTIONAL.filter((field) => !wanted.includes(field)), false);
        }
        markRows();
    }

    function markRows() {
        if (!api || api.isDestroyed()) return;
        const chosen = new Set(model.current.neurons);
        const on = [], off = [];
        api.forEachNode((node) => {
            const wanted = chosen.has(node.data.id);
            if (wanted !== !!node.isSelected()) (wanted ? on : off).push(node);
        });
        if (on.length) api.setNodesSelected({ nodes: on, newValue: true, source: "api" });
        if (off.length) api.setNodesSelected({ nodes: off, newValue: false, source: "api" });
    }

    function draw(data, columns) {
        drawTiles(data);
        drawTable(data, columns);
    }

    window.graybox.neurons = { draw: draw, forget: forget };

    // -- how cells look
    const cells = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
    const h = (...parts) => window.React.createElement(...parts);
    const unknown = (value) => value === null || value === undefined;

    cells.RateBar = function (props) {
        if (unknown(props.value)) return null;
        const value = Number(props.value);
        const width = "calc((100% - 52px) * " + Math.min(1, value).toFixed(4) + ")";
        return h("span", { className: "gb-bar-cell" },
            h("span", { className: "gb-bar gb-bar-rate", style: { width: width } }),
            h("span", { className: "gb-bar-text" }, model.percent(value)));
    };

    function measured(value, field) {
        if (field === "age") return whole(value);
        if (field === "change") return model.percent(value);
        if (value === 0 || (Math.abs(value) >= 0.001 && Math.abs(value) < 10000)) return String(Number(value.toPrecision(3)));
        return value.toExponential(1);
    }

    cells.Measured = function (props) {
        return unknown(props.value) ? null : h("span", null, measured(Number(props.value), props.colDef.field));
    };

    cells.HealthChip = function (props) {
        const [health, twin, bias, rate] = String(props.value || "").split("|");
        if (!health) return null;
        return h("span", { className: "gb-health" },
            h("span", { className: "gb-chip gb-chip-" + health, title: health }, twin || health),
            bias ? h("span", { className: "gb-chip gb-chip-frozen" }, bias) : null,
            rate ? h("span", { className: "gb-chip" }, rate) : null);
    };
})();
