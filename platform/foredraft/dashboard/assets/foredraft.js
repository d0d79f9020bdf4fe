// What the page does by itself: the address holds the whole view, everything else follows from it.
window.dash_clientside = window.dash_clientside || {};

(() => {
  const STEPS = 200;
  let sliding = 0;
  const none = () => window.dash_clientside.no_update;
  const set = (id, props) => window.dash_clientside.set_props(id, props);
  const asked = (search) => new URLSearchParams(search || window.location.search);

  // `replace` leaves no step for the back button: a slider passes hundreds of values.
  function go(changes, replace = false) {
    const query = asked();
    for (const [name, value] of Object.entries(changes)) {
      if (value === null) query.delete(name);
      else query.set(name, value);
    }
    const text = query.toString();
    const search = text ? "?" + text : "";
    if (search === window.location.search) return;
    if (!replace) return set("url", {search});
    window.history.replaceState(window.history.state, "", search || "/");
    // With the old `href` beside it, Dash would go back there.
    set("url", {search, href: window.location.href});
  }

  // A slider stands at 0..STEPS; its right end is no bound of its own.
  const bounds = {
    mse_ratio: {
      at: (place, [low, high]) => low + ((high - low) * place) / STEPS,
      place: (value, [low, high]) => (STEPS * (value - low)) / (high - low),
      text: (value) => value.toFixed(4),
    },
    deviation_ratio: {
      at: (place, [low, high]) => low * Math.pow(high / low, place / STEPS),
      place: (value, [low, high]) => (STEPS * Math.log(value / low)) / Math.log(high / low),
      text: (value) => Number(value.toPrecision(3)).toString(),
    },
  };

  function bound(limits, name) {
    const given = asked().get(name);
    const value = given === null ? limits[name].own : Number(given);
    return value === null || value === undefined ? null : value;
  }

  function label(limits, name, value) {
    return value === null ? "any" : "at most " + bounds[name].text(value);
  }

  // Tables are filled here, from the text in their `data-table`: no text is ever markup.
  function element(tag, text, name) {
    const made = document.createElement(tag);
    if (text !== undefined) made.textContent = text;
    if (name) made.className = name;
    return made;
  }

  function link(text, changes) {
    const made = element("a", text);
    const query = asked();
    for (const [name, value] of Object.entries(changes)) query.set(name, value);
    made.href = "?" + query;
    made.onclick = (event) => {
      if (event.ctrlKey || event.metaKey || event.shiftKey) return;
      event.preventDefault();
      go(changes);
    };
    return made;
  }

  function fill(frame) {
    const {columns, rows, numeric, best, links} = JSON.parse(frame.dataset.table);
    const side = (column) => (numeric[column] ? "number" : "");
    const head = element("tr");
    head.append(...columns.map((text, column) => element("th", text, side(column))));
    const body = element("tbody");
    rows.forEach((row, place) => {
      const line = element("tr", undefined, place === best ? "best" : "");
      row.forEach((text, column) => {
        const cell = element("td", undefined, side(column));
        const goes = column === 0 && Object.hasOwn(links, text);
        cell.append(goes ? link(text, links[text]) : text);
        line.append(cell);
      });
      body.append(line);
    });
    const made = element("table"), top = element("thead");
    top.append(head);
    made.append(top, body);
    frame.replaceChildren(made);
  }

  new MutationObserver((changes) => {
    const found = new Set();
    for (const {type, target, addedNodes} of changes) {
      if (type === "attributes") found.add(target);
      for (const node of addedNodes) {
        if (node.dataset?.table) found.add(node);
        node.querySelectorAll?.("[data-table]").forEach((one) => found.add(one));
      }
    }
    found.forEach(fill);
  }).observe(document, {subtree: true, childList: true, attributeFilter: ["data-table"]});

  window.dash_clientside.foredraft = {
    // Each part of the view by itself, so that a part that stays asks nothing of the server.
    split: (search, pathname, scope, picked, tab, axis) => {
      const query = asked(search);
      const part = (names) => {
        const kept = new URLSearchParams();
        for (const [name, value] of query) if (names.includes(name)) kept.append(name, value);
        return kept.toString();
      };
      const now = [
        part(["study", "mse_ratio", "deviation_ratio"]),
        part(["trial", "pinned", "window", "variate"]),
        query.get("tab") || "front",
        query.get("axis") || "acceptance",
      ];
      return [scope, picked, tab, axis].map((old, i) => (old === now[i] ? none() : now[i]));
    },

    slide: (mse, deviation, limits) => {
      if (!limits || !limits.mse_ratio) return none();
      const trigger = window.dash_clientside.callback_context.triggered_id;
      const name = {"slider-mse_ratio": "mse_ratio", "slider-deviation_ratio": "deviation_ratio"}[trigger];
      if (!name) return none();
      const place = Number(name === "mse_ratio" ? mse : deviation);
      const now = bound(limits, name);
      const range = limits[name].range;
      const shown = now === null ? STEPS : Math.round(bounds[name].place(now, range));
      if (place === Math.max(0, Math.min(STEPS, shown))) return none();
      const value = bounds[name].text(bounds[name].at(place, range));
      set("label-" + name, {children: label(limits, name, Number(value))});
      // A drag passes many values; the server is asked where it rests.
      window.clearTimeout(sliding);
      sliding = window.setTimeout(() => go({[name]: value}, true), 120);
      return none();
    },

    // The sliders follow the address: after a link, and after the back button.
    place: (search, limits) => {
      if (!limits || !limits.mse_ratio) return none();
      for (const name of Object.keys(bounds)) {
        const value = bound(limits, name);
        const place = value === null ? STEPS : bounds[name].place(value, limits[name].range);
        set("slider-" + name, {value: Math.max(0, Math.min(STEPS, Math.round(place)))});
        set("label-" + name, {children: label(limits, name, value)});
      }
      return none();
    },

    click: (clicked, figure, studies) => {
      const point = clicked && clicked.points && clicked.points[0];
      if (!point || !Array.isArray(point.customdata)) return none();
      const trace = figure.data[point.curveNumber];
      const study = (trace && trace.meta) || asked().getAll("study")[0];
      go({trial: study + ":" + point.customdata[0]});
      set("front", {clickData: null});
      // Beside the figure where there is room, under it on a narrow page.
      if (window.innerWidth < 1280) {
        document.getElementById("trial").scrollIntoView({behavior: "smooth", block: "start"});
      }
      return none();
    },

    pick: () => {
      // A button that has just come is no click, though Dash asks of it too.
      const context = window.dash_clientside.callback_context;
      const id = context.triggered_id;
      if (!id || !context.triggered.some((one) => one.value)) return none();
      go(id.pinned ? {pinned: id.trial || null} : {trial: id.trial || null});
      return none();
    },

    // Another window or variate of the trial's forecasts; the first is in no address.
    look: () => {
      const context = window.dash_clientside.callback_context;
      const id = context.triggered_id;
      if (!id || !context.triggered.some((one) => one.value)) return none();
      go({[id.look]: id.place === "0" ? null : id.place}, true);
      return none();
    },

    tab: (...clicks) => {
      const id = window.dash_clientside.callback_context.triggered_id;
      if (id) go({tab: id.replace("go-", "") === "front" ? null : id.replace("go-", "")});
      return none();
    },

    axis: (...clicks) => {
      const id = window.dash_clientside.callback_context.triggered_id;
      const name = id && id.replace("axis-", "");
      if (name) go({axis: name === "acceptance" ? null : name});
      return none();
    },

    own: (clicks) => {
      if (clicks) go({mse_ratio: null, deviation_ratio: null});
      return none();
    },

    // Which tab and axis are chosen, and which part of the page is to be seen.
    show: (tab, axis, scope) => {
      const listed = !new URLSearchParams(scope || "").has("study");
      const tabs = ["front", "why", "training", "cost"];
      const axes = ["acceptance", "mse_ratio", "deviation_ratio"];
      return [
        {display: listed ? "block" : "none"},
        {display: listed ? "none" : "block"},
        ...tabs.map((name) => ({display: name === tab ? "block" : "none"})),
        ...tabs.map((name) => (name === tab ? "chosen" : "")),
        ...axes.map((name) => (name === axis ? "chosen" : "")),
      ];
    },
  };
})();
