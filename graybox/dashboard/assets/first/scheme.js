// Before anything is painted: light or dark, as chosen here last, else as the system prefers.
(function () {
    let chosen = null;
    try { chosen = window.localStorage.getItem("mantine-color-scheme-value"); } catch (error) { /* storage is off */ }
    const dark = chosen === "dark" || (chosen !== "light" && window.matchMedia("(prefers-color-scheme: dark)").matches);
    document.documentElement.setAttribute("data-mantine-color-scheme", dark ? "dark" : "light");
})();
