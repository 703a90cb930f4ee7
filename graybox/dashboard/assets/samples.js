// The sample grid's source of rows: plain HTTP, one request at a time, blocks as the user scrolls.
(function () {
    const { setText } = window.graybox;
    const same = () => window.dash_clientside.no_update;
    const GRID = "samples-grid";
    const SETTLES = 2500; // milliseconds between two refreshes by ourselves
    const VOLATILE = new Set(["loss", "prediction", "encounters", "last_age"]);
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
        const some = page.matches !== page.all ? whole(page.matches) + " of " : "";
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
                        if (!response.ok) throw new Error(page.error);
                        return page;
                    })
                    .then((page) => {
                        problem("");
                        summary(page);
                        params.successCallback(page.rows, page.matches);
                        if (page.matches === 0) problem("No sample matches.");
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

    function listen() {
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
        return !moving && !(sort && VOLATILE.has(sort.colId));
    }

    async function querySamples(page, focus, changed, clicks, status, split, state, wrong, label, id, low, high) {
        if (!page || page.includes("gb-hidden") || !status) return same();
        live = status.run || live;
        const triggered = (window.dash_clientside.callback_context.triggered || []).map((item) => item.prop_id);
        const filter = new URLSearchParams();
        const given = {
            run: (focus || {}).run || live, split: split, status: state, wrong: wrong ? "1" : "", label: (label || []).join(","),
            id: id, min_loss: low, max_loss: high,
        };
        for (const [name, value] of Object.entries(given)) if (value) filter.set(name, String(value).trim());
        const text = filter.toString();
        await ready();
        const now = Date.now();
        const byHand = triggered.some((name) => name.startsWith("samples-changed") || name.startsWith("samples-refresh"));
        // The component around the grid gives it a source of its own when it is ready, which may be after us.
        const replaced = api.getGridOption("datasource") !== installed;
        if (text !== asked || replaced || (broken && now - refreshed > SETTLES)) {
            if (text !== asked) api.deselectAll();
            if (run !== null && run !== given.run) show(null);
            run = given.run;
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

    function countSelected(rows, status, focus) {
        const live = !!(status && status.connected) && !(focus && focus.run && focus.run !== status.run);
        const count = (rows || []).length;
        const words = count > 1 ? " " + count.toLocaleString("en") : "";
        return [!live || !count, !live || !count, "Discard" + words, "Restore" + words];
    }

    // The picture of the sample looked at, with masks and boxes drawn over it or without.
    function showLabels(shown, address) {
        const plain = (address || "").replace(/&labels=1$/, "");
        return shown ? plain + "&labels=1" : plain;
    }

    const functions = { querySamples, countSelected, showLabels };
    window.dash_clientside.graybox = Object.assign(window.dash_clientside.graybox || {}, functions);

    // A sample that cannot be read has no picture; the browser's own sign for that looks like a defect of the page.
    document.addEventListener("error", (event) => {
        const image = event.target;
        if (image instanceof HTMLImageElement && image.matches(".gb-thumbnail, .gb-detail-image")) {
            image.classList.add("gb-broken");
        }
    }, true);

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
})();
