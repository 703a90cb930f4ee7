// Which samples the bar above the grid is for, and what its buttons say.
(function () {
    const { whole } = window.graybox;
    const same = () => window.dash_clientside.no_update;
    let selectedBefore = 0;
    let viewBefore = "";
    let liveBefore = "";
    let toldBefore = "";

    // What is meant follows what was done last: a row that is selected, or a query that is asked. A choice by hand stays
    // until one of the two changes.
    function meant(count, view, wanted) {
        const id = view ? view.id : "";
        let next = wanted;
        if (id !== viewBefore || !count !== !selectedBefore) next = count ? "selected" : "view";
        if (!id) next = "selected";
        selectedBefore = count;
        viewBefore = id;
        return next;
    }

    function options(count, view) {
        const found = [{ value: "selected", label: count ? "Selected " + whole(count) : "None selected" }];
        if (view) found.push({ value: "view", label: "All " + whole(view.matches) + " found", disabled: !view.matches });
        return found;
    }

    function offerActions(rows, view, wanted, status, focus, ...filters) {
        liveBefore = (status && status.run) || liveBefore;
        const shown = (focus && focus.run) || liveBefore;
        const here = view && view.run === shown ? view : null;
        const live = !!(status && status.connected) && shown === status.run;
        const count = (rows || []).length;
        const next = meant(count, here, wanted);
        const many = next === "view" ? here.matches : count;
        const all = next === "view" ? " all " + whole(many) : many > 1 ? " " + whole(many) : "";
        const filtered = filters.some((value) => (Array.isArray(value) ? value.length : value));
        const off = !live || !many;
        const told = [
            options(count, here), next === wanted ? same() : next,
            "Discard" + all, "Restore" + all, "Add" + (all && " to" + all), "Remove" + (all && " from" + all),
            "Set" + (all && " for" + all), "The data set's label again",
            off, off, off, off, off, off,
            off, off, !live,
            here ? "The " + whole(here.matches) + " samples of the query"
                : filtered ? "The samples that the filters leave" : "All samples of the run",
        ];
        const text = JSON.stringify(told);
        if (text === toldBefore) return told.map(same); // most calls are for a status that changes nothing here
        toldBefore = text;
        return told;
    }

    function saveFile(file) {
        if (!file) return same();
        const link = document.createElement("a");
        link.href = file.address;
        link.download = ""; // its name comes with it
        document.body.append(link);
        link.click();
        link.remove();
        return same();
    }

    window.dash_clientside.graybox = Object.assign(window.dash_clientside.graybox || {}, { offerActions, saveFile });
})();
