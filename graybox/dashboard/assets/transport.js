// A page's clock stands still while its questions are under way: Dash passes over the answer to a question that was asked
// again meanwhile, so that a page whose answers take longer than the clock's interval would never show any.
(function () {
    const GIVE_UP = 30000; // milliseconds; whoever does not answer by then is asked again
    const plain = window.fetch;
    const asked = {}; // by clock: questions under way

    function pause(clock) {
        asked[clock] = (asked[clock] || 0) + 1;
        window.dash_clientside.set_props(clock, { max_intervals: 0 });
        let settled = false;
        return () => {
            if (settled) return;
            settled = true;
            asked[clock] -= 1;
            if (!asked[clock]) window.dash_clientside.set_props(clock, { max_intervals: -1 });
        };
    }

    window.fetch = function (address, options) {
        const answer = plain.apply(this, arguments);
        const body = options && typeof options.body === "string" ? options.body : "";
        const clock = body.match(/"changedPropIds":\["(tick-[a-z]+)\.n_intervals"\]/);
        if (clock && String(address).includes("_dash-update-component")) {
            const done = pause(clock[1]);
            window.setTimeout(done, GIVE_UP);
            answer.then(done, done);
        }
        return answer;
    };
})();
