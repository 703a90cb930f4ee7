// The sample grid's source of rows: plain HTTP, one request at a time, blocks as the user scrolls.
(function () {
    const { setText } = window.graybox;
    const same = () => window.dash_clientside.no_update;
    const GRID = "samples-grid";
    const SETTLES = 2500; // milliseconds between two refreshes by ourselves
    const STEADY = new Set(["sample_id", "origin", "label", "discarded", "tags"]); // columns that training does not change
    let asked = null; // the filter the grid has
    let installed = null; // the source of rows the grid was given
    let api = null;
    let broken = false;
    let refreshed = 0;
    let shown = null; // the row in the side panel
    let live = ""; // the run last seen live, which is shown where the address names none
    let run = null; // the run whose rows the grid has

    function problem(text) {
        const place = document.getElementById("samples-problem");
        if (!place) return;
        setText(place, text);
        place.classList.toggle("gb-hidden", !text);
        broken = !!text;
    }

    function summary(page) {
        const place = document.getElementById("samples-count");
        if (!place) return;
        const whole = (value) => Number(value).toLocaleString("en");
        // What a query found, its own bar says.
        const some = page.matches !== page.all && !asked.startsWith("view=") ? whole(page.matches) + " of " : "";
        const out = page.discarded ? " · " + whole(page.discarded) + " discarded" : "";
        setText(place, some + whole(page.all) + " samples" + out);
    }

    function source(filter) {
        return {
            getRows(params) {
                const query = new URLSearchParams(filter);
                query.set("start", params.startRow);
                query.set("end", params.endRow);
                const sort = params.sortModel[0];
                if (sort) {
                    query.set("sort", sort.colId);
                    if (sort.sort === "desc") query.set("desc", "1");
                }
                fetch("/api/samples?" + query.toString())
                    .then(async (response) => {
                        const page = await response.json();
                        if (response.ok) return page;
                        const view = new URLSearchParams(filter).get("view");
                        if (response.status === 410 && view) window.dash_clientside.set_props("samples-lost", { data: view });
                        throw new Error(page.error);
                    })
                    .then((page) => {
                        problem("");
                        summary(page);
                        params.successCallback(page.rows, page.matches);
                        if (page.matches === 0) problem(page.all ? "No sample matches." : "This run has no samples yet.");
                    })
                    .catch((error) => {
                        params.failCallback();
                        setText(document.getElementById("samples-count"), "");
                        problem(error.message || "The samples cannot be read.");
                    });
            },
        };
    }

    function show(row) {
        shown = row;
        window.dash_clientside.set_props("sample-shown", { data: row });
    }

    // The component around the grid tells of a selection only when it is not busy with one of its own.
    function publish() {
        const rows = api.getSelectedRows().map(({ run, origin, sample_id }) => ({ run, origin, sample_id }));
        window.dash_clientside.set_props("samples-selected", { data: rows });
    }

    function listen() {
        api.addEventListener("selectionChanged", publish);
        api.addEventListener("cellFocused", (event) => {
            const node = event.rowIndex === null ? null : api.getDisplayedRowAtIndex(event.rowIndex);
            if (node && node.data && (!shown || shown.key !== node.data.key)) show(node.data);
        });
        api.addEventListener("modelUpdated", () => {
            if (!shown) return;
            const node = api.getRowNode(shown.key);
            if (node && node.data && JSON.stringify(node.data) !== JSON.stringify(shown)) show(node.data);
        });
    }

    async function ready() {
        if (api && !api.isDestroyed()) return api;
        api = await window.dash_ag_grid.getApiAsync(GRID);
        asked = null;
        listen();
        return api;
    }

    function calm() {
        const sort = api.getColumnState().find((column) => column.sort);
        const filter = new URLSearchParams(asked || "");
        const moving = ["wrong", "min_loss", "max_loss"].some((name) => filter.get(name));
        return !moving && (!sort || STEADY.has(sort.colId));
    }

    function filtered(shownRun, split, state, wrong, label, id, low, high) {
        const filter = new URLSearchParams();
        const given = {
            run: shownRun, split: split, status: state, wrong: wrong ? "1" : "", label: (label || []).join(","),
            id: id, min_loss: low, max_loss: high,
        };
        for (const [name, value] of Object.entries(given)) if (value) filter.set(name, String(value).trim());
        return filter.toString();
    }

    const found = (view) => new URLSearchParams({ view: view.id, run: view.run }).toString();

    async function querySamples(page, focus, changed, clicks, status, view, ...filters) {
        if (!page || page.includes("gb-hidden") || !status) return same();
        live = status.run || live;
        const triggered = (window.dash_clientside.callback_context.triggered || []).map((item) => item.prop_id);
        const shownRun = (focus || {}).run || live;
        const text = view && view.run === shownRun ? found(view) : filtered(shownRun, ...filters);
        await ready();
        const now = Date.now();
        const byHand = triggered.some((name) => name.startsWith("samples-changed") || name.startsWith("samples-refresh"));
        // The component around the grid gives it a source of its own when it is ready, which may be after us.
        const replaced = api.getGridOption("datasource") !== installed;
        if (text !== asked || replaced || (broken && now - refreshed > SETTLES)) {
            if (text !== asked) api.deselectAll();
            if (run !== null && run !== shownRun) show(null);
            run = shownRun;
            asked = text;
            refreshed = now;
            installed = source(text);
            api.setGridOption("datasource", installed);
        } else if (byHand || (status && status.state === "running" && now - refreshed > SETTLES && calm())) {
            refreshed = now;
            api.refreshInfiniteCache();
        }
        return same();
    }

    // The picture of the sample looked at, with masks and boxes drawn over it or without.
    function showLabels(shown, address) {
        const plain = (address || "").replace(/&labels=1$/, "");
        return shown ? plain + "&labels=1" : plain;
    }

    const functions = { querySamples, showLabels };
    window.dash_clientside.graybox = Object.assign(window.dash_clientside.graybox || {}, functions);

    // A sample that cannot be read has no picture; the browser's own sign for that looks like a defect of the page.
    document.addEventListener("error", (event) => {
        const image = event.target;
        if (image instanceof HTMLImageElement && image.matches(".gb-thumbnail, .gb-detail-image")) {
            image.classList.add("gb-broken");
        }
    }, true);

    // -- what cells hold; by these the grid tells whether a cell is to be drawn anew
    const values = (window.dashAgGridFunctions = window.dashAgGridFunctions || {});
    values.sampleLabel = (params) => (params.data ? params.data.label + "\u0000" + params.data.original : "");
    values.sampleTags = (params) => (params.data ? params.data.tags.join("\u0000") : "");
    values.sampleScore = (params) => {
        const value = params.data && params.data.more[params.column.getColId().slice("column:".length)];
        return value === undefined || value === null ? "" : value;
    };

    // -- how cells look
    const cells = (window.dashAgGridComponentFunctions = window.dashAgGridComponentFunctions || {});
    const h = (...parts) => window.React.createElement(...parts);

    cells.Thumbnail = function (props) {
        if (!props.data) return null;
        if (!props.value) return h("span", { className: "gb-thumbnail gb-no-image" });
        return h("img", { className: "gb-thumbnail", src: props.value, alt: "", loading: "lazy", key: props.value });
    };

    cells.LossBar = function (props) {
        const value = props.value;
        if (!props.data) return h("span", { className: "gb-skeleton" });
        if (value === null || value === undefined) return h("span", { className: "gb-muted" }, props.data.loss_text || "–");
        const share = 1 - Math.exp(-Math.max(value, 0));
        return h("span", { className: "gb-bar-cell" },
            h("span", { className: "gb-bar gb-bar-loss", style: { width: "calc((100% - 56px) * " + share.toFixed(3) + ")" } }),
            h("span", { className: "gb-bar-text" }, props.data.loss_text));
    };

    cells.SampleStatus = function (props) {
        if (!props.data) return null;
        const word = props.data.discarded ? "discarded" : "in training";
        const train = props.data.origin === "train" || props.data.discarded;
        return train ? h("span", { className: "gb-chip gb-chip-" + word.replace(" ", "-") }, word) : null;
    };

    cells.SampleLabel = function (props) {
        if (!props.data) return null;
        const { label, original } = props.data;
        if (!original) return h("span", null, label);
        return h("span", { className: "gb-label-cell", title: "Corrected; the data set says " + original },
            h("span", { className: "gb-corrected" }, label || "none"), h("s", { className: "gb-muted" }, original));
    };

    cells.SampleTags = function (props) {
        if (!props.data) return null;
        const chips = props.data.tags.map((tag) => h("span", { className: "gb-chip gb-tag", key: tag }, tag));
        return h("span", { className: "gb-tags", title: props.data.tags.join(", ") }, ...chips);
    };

    const FIGURE = /^-?(\d+\.?\d*|\.\d+)(e[-+]?\d+)?$/i;

    cells.SampleScore = function (props) {
        const text = String(props.value === undefined || props.value === null ? "" : props.value);
        if (!props.data) return null;
        if (!text) return h("span", { className: "gb-muted" }, "–");
        const figure = FIGURE.test(text) ? Number(text) : NaN;
        if (!Number.isFinite(figure)) return h("span", null, text);
        const short = Number.isInteger(figure) ? figure.toLocaleString("en") : String(Number(figure.toPrecision(4)));
        return h("span", { title: text }, short);
    };
})();
