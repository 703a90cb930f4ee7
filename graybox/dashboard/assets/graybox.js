// The shell in the browser: header, hyper-parameter fields, pages, banners.
window.dash_clientside = window.dash_clientside || {};
window.graybox = window.graybox || {};

(function () {
    const PAGES = ["metrics", "data", "model", "checkpoints", "history"];
    const FIELDS = [
        "experiment_name", "learning_rate", "batch_size", "training_steps_to_do", "full_eval_frequency",
        "checkpoint_frequency",
    ];
    const same = () => window.dash_clientside.no_update;
    const whole = (value) => Math.round(value).toLocaleString("en");

    function short(value) {
        if (value >= 1e6) return (value / 1e6).toFixed(value >= 1e7 ? 1 : 2) + "M";
        if (value >= 1e4) return (value / 1e3).toFixed(1) + "k";
        return value >= 100 ? whole(value) : value.toFixed(value >= 10 ? 0 : 1);
    }

    function duration(seconds) {
        if (!isFinite(seconds) || seconds < 0) return "";
        if (seconds < 60) return Math.ceil(seconds) + " s";
        if (seconds < 3600) return Math.floor(seconds / 60) + " m " + Math.round(seconds % 60) + " s";
        return Math.floor(seconds / 3600) + " h " + Math.round((seconds % 3600) / 60) + " m";
    }

    // Keep a container's children in step with a list, touching only what changed: nothing is replaced under the
    // pointer. make(item) gives an element, draw(element, item) fills it.
    function keyed(container, items, keyOf, make, draw) {
        const held = new Map();
        for (const child of Array.from(container.children)) held.set(child.dataset.key, child);
        let place = container.firstElementChild;
        for (const item of items) {
            const key = String(keyOf(item));
            let element = held.get(key);
            if (!element) {
                element = make(item);
                element.dataset.key = key;
            }
            held.delete(key);
            if (element === place) place = place.nextElementSibling;
            else container.insertBefore(element, place);
            draw(element, item);
        }
        for (const child of held.values()) child.remove();
    }

    function setText(element, text) {
        if (element.textContent !== text) element.textContent = text;
    }

    function make(tag, className, attributes) {
        const element = document.createElement(tag);
        if (className) element.className = className;
        for (const [name, value] of Object.entries(attributes || {})) element.setAttribute(name, value);
        return element;
    }

    Object.assign(window.graybox, { keyed, setText, make, short, whole });

    function renderHeader(status) {
        if (!status) return Array(12).fill(same());
        const state = status.state;
        const badge = "gb-state gb-state-" + state;
        if (!status.connected) {
            return [state, badge, state, "No backend", "", { width: "0%" }, "Resume", true, "resume",
                "Resume training", "Waiting for a backend", ""];
        }
        const running = state === "running" || state === "recovering" || state === "starting";
        const total = status.step + status.steps_left;
        const share = total > 0 ? (100 * status.step) / total : 0;
        const batch = parseFloat((status.hp.batch_size || {}).text);
        const speed = running ? status.throughput : 0;
        const left = speed > 0 && batch > 0 ? duration((status.steps_left * batch) / speed) : "";
        const facts = [
            status.device, status.parameters ? whole(status.parameters) + " parameters" : "",
            status.epoch ? "epoch " + whole(status.epoch) : "", status.branch ? "branch " + status.branch : "",
            status.address,
        ].filter(Boolean).join("  ·  ");
        return [
            state, badge, state,
            "Step " + whole(status.step) + " of " + whole(total) + "  ·  age " + whole(status.age),
            (speed > 0 ? short(speed) + " samples/s" : "") + (left ? "  ·  " + left + " left" : ""),
            { width: share.toFixed(2) + "%" },
            running ? "Pause" : "Resume", false, running ? "pause" : "resume",
            running ? "Pause training" : "Resume training",
            status.activity || status.name, facts,
        ];
    }

    // -- hyper-parameters: `shown` is what a field last got from here or sent, `pending` what was sent and not answered
    // yet, `counts` its number. `answered`: the version of the first status that knows of the answer; an older
    // one may still be under way. `followed`: sent with Enter and not typed into since, so that it shows the real value
    // though it has the focus. `runs`: whose value a field shows, so that what is typed into it reaches that run or none.
    const shown = {};
    const runs = {};
    const pending = {};
    const counts = {};
    const answered = {};
    const followed = {};
    let sent = 0;

    // Typing is told from what the page itself writes by its event; the value may lag behind what was last written.
    document.addEventListener("input", (event) => {
        const id = event.target instanceof Element ? event.target.id : "";
        if (id.startsWith("hp-")) delete followed[id.slice(3)];
    });

    function renderHyperParameters(status, settled) {
        const triggered = (window.dash_clientside.callback_context.triggered || []).map((item) => item.prop_id);
        const answer = triggered.some((id) => id.startsWith("hp-settled")) ? settled : null;
        // Dash passes over the answer to what was sent just before something else.
        for (const name of answer ? Object.keys(pending) : []) {
            if (counts[name] <= answer.count) answered[name] = answer.version;
        }
        const values = [];
        const disabled = [];
        const fresh = triggered.some((id) => id.startsWith("status"));
        for (const name of FIELDS) {
            const field = status && status.connected ? status.hp[name] : null;
            disabled.push(!field);
            const real = field ? field.text : "";
            const input = document.getElementById("hp-" + name);
            const focused = input && document.activeElement === input;
            // What was refused left nothing to wait for; what was done shows with the next status.
            const refused = answer && answer.name === name && answer.refused;
            if (!fresh && !refused) {
                values.push(same());
                continue;
            }
            if (name in answered && (refused || status.version >= answered[name])) {
                // An answer came: the field shows the real value again, unless somebody types the next one already.
                const typing = focused && input.value !== pending[name];
                delete answered[name];
                delete pending[name];
                followed[name] = focused && !typing;
                if (typing) {
                    values.push(same());
                    continue;
                }
            } else {
                followed[name] = followed[name] && focused;
                if (name in pending || (focused && field && !followed[name])) {
                    values.push(same());
                    continue;
                }
            }
            shown[name] = real;
            runs[name] = (status && status.run) || "";
            values.push(input && input.value === real ? same() : real);
        }
        return values.concat(disabled);
    }

    function submitHyperParameter(...given) {
        const triggered = window.dash_clientside.callback_context.triggered || [];
        const values = given.slice(2 * FIELDS.length);
        for (const item of triggered) {
            const name = item.prop_id.split(".")[0].slice(3);
            const text = values[FIELDS.indexOf(name)];
            if (item.prop_id.endsWith(".n_blur")) delete followed[name];
            else followed[name] = true;
            if (text === undefined || text === null || text === shown[name] || text === pending[name]) continue;
            pending[name] = text;
            shown[name] = text;
            sent += 1;
            counts[name] = sent;
            return { name: name, text: text, count: sent, run: runs[name] || "" };
        }
        return same();
    }

    function toggleHyperParameters(clicks) {
        const open = clicks % 2 === 1;
        return ["gb-hp" + (open ? " gb-open" : ""), open ? "true" : "false"];
    }

    // -- pages
    function route(pathname, search, focus) {
        const asked = (pathname || "/").replace(/^\/+|\/+$/g, "");
        const page = PAGES.includes(asked) ? asked : "metrics";
        const query = new URLSearchParams(search || "");
        const next = { run: query.get("run") || "", layer: query.get("layer") || "" };
        const changed = !focus || focus.run !== next.run || focus.layer !== next.layer;
        const keep = next.run ? "?run=" + encodeURIComponent(next.run) : "";
        document.title = page.charAt(0).toUpperCase() + page.slice(1) + " · Graybox";
        return [
            ...PAGES.map((name) => "gb-page" + (name === page ? "" : " gb-hidden")),
            ...PAGES.map((name) => name !== page),
            ...PAGES.map((name) => "gb-tab" + (name === page ? " gb-tab-active" : "")),
            ...PAGES.map((name) => "/" + name + (name === page ? search || "" : keep)),
            changed ? next : same(),
            next.run || "live",
            "gb-navigation" + (page === "metrics" ? " gb-no-run" : ""),
        ];
    }

    function chooseRun(value, search) {
        const query = new URLSearchParams(search || "");
        const before = query.get("run") || "live";
        if (value && value !== before) {
            if (value === "live") query.delete("run");
            else query.set("run", value);
            query.delete("layer");
            const text = query.toString();
            window.dash_clientside.set_props("url", { search: text ? "?" + text : "" });
        }
        return same();
    }

    function renderBanners(status) {
        if (!status) return Array(6).fill(same());
        const waiting = !status.connected;
        const failed = status.connected && !!status.error;
        return [
            "gb-banner" + (waiting ? "" : " gb-hidden"), status.waiting || "",
            "gb-banner gb-banner-error" + (failed ? "" : " gb-hidden"), status.error || "", status.traceback || "",
            status.traceback ? "" : "gb-hidden",
        ];
    }

    // -- undo: buttons in toasts are drawn out of Dash's reach, so that all of them are listened to here
    let undos = 0;
    document.addEventListener("click", (event) => {
        const button = event.target instanceof Element ? event.target.closest(".gb-undo") : null;
        if (!button) return;
        button.disabled = true; // once is enough
        window.setTimeout(() => (button.disabled = false), 3000);
        undos += 1;
        const asked = { run: button.dataset.run, sequence: Number(button.dataset.sequence), count: undos };
        window.dash_clientside.set_props("undo-asked", { data: asked });
    });

    window.dash_clientside.graybox = Object.assign(window.dash_clientside.graybox || {}, {
        renderHeader, renderHyperParameters, submitHyperParameter, toggleHyperParameters, route, chooseRun, renderBanners,
    });
})();
