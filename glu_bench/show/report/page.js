// Charts, toggles, sorting. The page reads without it; nothing here makes HTML from data.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("page-data").textContent);
  const root = document.documentElement;
  const X = {
    tokens: { title: "tokens", at: (p) => p[0] },
    flops: { title: "FLOPs, forward and backward", at: (p, arm) => p[0].map((t) => t * arm.flops) },
    seconds: { title: "seconds of training", at: (p) => p[1] },
  };
  const SKIPPED_SHARE = 0.1; // the steep start would flatten all that follows
  const CONFIG = {
    responsive: true,
    displaylogo: false,
    typesetMath: false, // a dollar in a name is a dollar
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d", "zoomIn2d", "zoomOut2d"],
    toImageButtonOptions: { format: "svg", filename: "glu-bench" },
  };

  const css = (name) => getComputedStyle(root).getPropertyValue(name).trim();
  // plotly reads some tags and entities in its texts; a name is text
  const text = (name) => name.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
  // as a chart has room for it; the tables have it whole
  const short = (name) => text(name.length > 32 ? `${name.slice(0, 31)}\u2026` : name);
  const finite = (value) => typeof value === "number" && Number.isFinite(value);

  // ---- numbers

  function meanPoints(runs, kind) {
    const own = runs.map((run) => run[kind]);
    if (!own.length || own.some((points) => !points)) return null;
    const rows = own.map((p) => new Map(p[0].map((t, i) => [t, [p[1][i], p[2][i]]])));
    const shared = own[0][0].filter((t) => rows.every((row) => row.has(t)));
    if (!shared.length) return null;
    const mean = (t, at) => rows.reduce((sum, row) => sum + row.get(t)[at], 0) / rows.length;
    return [shared, shared.map((t) => mean(t, 0)), shared.map((t) => mean(t, 1))];
  }

  function interpolate(x, y, at) {
    if (at < x[0] || at > x[x.length - 1]) return null;
    const i = x.findIndex((value) => value >= at);
    if (x[i] === at || i === 0) return y[i];
    const share = (at - x[i - 1]) / (x[i] - x[i - 1]);
    return y[i - 1] + share * (y[i] - y[i - 1]);
  }

  function lateRange(lines, log, withZero) {
    const last = Math.max(...lines.flatMap((l) => l.x.filter(finite)), -Infinity);
    const late = lines.flatMap((l) => l.y.filter((y, i) => finite(y) && l.x[i] >= SKIPPED_SHARE * last));
    if (withZero) late.push(0);
    let low = Math.min(...late);
    let high = Math.max(...late);
    if (!(low < high)) return null;
    if (log) [low, high] = [Math.log10(low), Math.log10(high)];
    const pad = 0.06 * (high - low);
    return [low - pad, high + pad];
  }

  // ---- drawing

  function layout(x, y, more) {
    const line = css("--grid");
    const axis = {
      gridcolor: line, linecolor: line, zeroline: false, automargin: true, tickcolor: line,
      tickfont: { color: css("--muted") },
    };
    const title = { font: { color: css("--muted"), size: 13 }, standoff: 8 };
    return {
      paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", showlegend: false,
      font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: css("--ink") },
      margin: { l: 66, r: 20, t: 16, b: 54 },
      hoverlabel: {
        bgcolor: css("--panel"), bordercolor: css("--line"), font: { color: css("--ink") }, namelength: 40,
      },
      xaxis: { ...axis, title: { text: x, ...title }, exponentformat: "SI", rangemode: "tozero" },
      yaxis: { ...axis, title: { text: y, ...title } },
      dragmode: "zoom",
      ...more,
    };
  }

  function line(arm, x, y, more) {
    const few = x.length <= 24;
    return {
      type: "scatter", mode: few ? "lines+markers" : "lines", x, y, name: text(arm.name),
      line: { color: css(arm.color), width: 2.2, dash: arm.dash },
      marker: { symbol: arm.symbol, size: 7, color: css(arm.color) },
      ...more,
    };
  }

  function show(figure, traces, plan) {
    const place = figure && figure.querySelector(".chart");
    if (!place) return;
    figure.classList.add("live"); // first, for a hidden place has no width
    window.Plotly.react(place, traces, plan, CONFIG);
  }

  // ---- one table

  function makeTable(section, table) {
    const id = section.id;
    const find = (name) => document.getElementById(`${id}-${name}`);
    const choice = (name) => {
      const picked = section.querySelector(`input[name="${id}-${name}"]:checked`);
      return picked && picked.value;
    };
    const hidden = new Set();
    const isShown = (at) => at === null || !hidden.has(at);
    const counted = (at) => table.runs.filter((run) => run.arm === at && run.status === "complete");
    const memo = new Map(); // means do not change
    const mean = (at, kind, seeds) => {
      const key = `${at} ${kind} ${seeds ? seeds.join() : ""}`;
      if (!memo.has(key)) {
        memo.set(key, meanPoints(counted(at).filter((r) => !seeds || seeds.includes(r.seed)), kind));
      }
      return memo.get(key);
    };

    function axes(kind) {
      const name = choice("x") || "tokens";
      return { ...X[name], log: choice("xscale") === "log", ylog: choice("yscale") === "log", kind };
    }

    function drawLosses() {
      const a = axes(choice("loss"));
      const each = choice("seeds") === "each";
      const traces = [];
      const main = [];
      table.arms.forEach((arm, at) => {
        if (!isShown(at)) return;
        for (const run of table.runs) {
          const stopped = run.status !== "complete";
          if (run.arm !== at || !run[a.kind] || !(each || stopped)) continue;
          const said = stopped ? `${text(arm.name)}, seed ${run.seed}, ${text(run.status)}` : `${text(arm.name)}, seed ${run.seed}`;
          traces.push(line(arm, a.at(run[a.kind], arm), run[a.kind][2], {
            name: said, mode: "lines", opacity: each ? 0.85 : 0.6,
            line: { color: css(arm.color), width: 1.2, dash: stopped ? "dot" : arm.dash },
          }));
          main.push(traces[traces.length - 1]);
        }
        const points = each ? null : mean(at, a.kind);
        if (points) {
          traces.push(line(arm, a.at(points, arm), points[2], { meta: at }));
          main.push(traces[traces.length - 1]);
        }
      });
      const plan = layout(a.title, "loss, nats/token", { hovermode: traces.length > 12 ? "closest" : "x unified" });
      plan.xaxis.type = a.log ? "log" : "linear";
      plan.yaxis.type = a.ylog ? "log" : "linear";
      plan.yaxis.hoverformat = ".4f";
      plan.yaxis.range = lateRange(main, a.ylog) || undefined;
      show(find("losses"), traces, plan);
    }

    function drawGaps() {
      const a = axes(choice("loss"));
      const base = table.baseline;
      const traces = [];
      if (base !== null) {
        const baseSeeds = counted(base).map((run) => run.seed);
        table.arms.forEach((arm, at) => {
          if (!isShown(at) || at === base) return;
          const seeds = counted(at).map((run) => run.seed).filter((seed) => baseSeeds.includes(seed));
          const ours = mean(at, a.kind, seeds);
          const theirs = mean(base, a.kind, seeds);
          if (!ours || !theirs) return;
          const x = a.at(ours, arm);
          const bx = a.at(theirs, table.arms[base]);
          traces.push(line(arm, x, ours[2].map((y, i) => {
            const other = interpolate(bx, theirs[2], x[i]);
            return other === null ? null : y - other;
          })));
        });
      }
      const plan = layout(a.title, "difference, nats/token", {
        hovermode: traces.length > 12 ? "closest" : "x unified",
        shapes: [{
          type: "line", xref: "paper", x0: 0, x1: 1, y0: 0, y1: 0, line: { color: css("--cb"), width: 1.5 },
        }],
      });
      plan.xaxis.type = a.log ? "log" : "linear";
      plan.yaxis.hoverformat = "+.4f";
      plan.yaxis.range = lateRange(traces, false, true) || undefined;
      show(find("gaps"), traces, plan);
    }

    function drawTuning() {
      table.tuning.forEach((chart, number) => {
        const value = chart.numeric ? Number : text;
        const traces = [];
        for (const arm of chart.arms) {
          if (!isShown(arm.arm)) continue;
          const x = arm.x.map(value);
          traces.push({
            ...line(arm, arm.seeds.flatMap((s, i) => s.map(() => x[i])), arm.seeds.flat()),
            mode: "markers", opacity: 0.4, hoverinfo: "skip",
          });
          traces.push({ ...line(arm, x, arm.y), mode: "lines+markers" });
          const best = arm.x.indexOf(arm.chosen);
          if (best >= 0) {
            traces.push({
              ...line(arm, [x[best]], [arm.y[best]]), mode: "markers", hoverinfo: "skip",
              marker: { symbol: "circle-open", size: 17, color: css("--ink"), line: { width: 2 } },
            });
          }
        }
        const plan = layout(short(chart.key), "held-out loss, nats/token", { hovermode: "closest" });
        const values = [...new Set(chart.arms.flatMap((arm) => arm.x.map(value)))];
        plan.xaxis.type = chart.log ? "log" : chart.numeric ? "linear" : "category";
        if (chart.numeric) Object.assign(plan.xaxis, { tickvals: values, ticktext: values.map(String) });
        plan.yaxis.hoverformat = ".4f";
        show(find(`tuning-${number}`), traces, plan);
      });
    }

    function drawDiagnostics() {
      const picked = (name) => Number((section.querySelector(`[data-pick=${name}]`) || { value: 0 }).value);
      const profile = table.profiles[picked("profile")];
      if (profile) {
        const traces = profile.arms.filter((each) => isShown(each.arm)).map((each) =>
          ({ ...line(table.arms[each.arm], each.y.map((_, i) => i + 1), each.y), mode: "lines+markers" }));
        const plan = layout("layer", short(profile.name), { hovermode: "x unified" });
        plan.xaxis.range = [0.7, profile.arms[0].y.length + 0.3];
        plan.xaxis.dtick = profile.arms[0].y.length > 16 ? undefined : 1;
        plan.yaxis.hoverformat = ".4g";
        show(find("profile"), traces, plan);
      }
      const quantity = table.diagnostics[picked("diagnostic")];
      if (quantity) {
        const a = axes();
        const traces = quantity.arms.filter((each) => isShown(each.arm)).map((each) => {
          const arm = table.arms[each.arm];
          return line(arm, a.at(each.points, arm), each.points[2]);
        });
        const plan = layout(a.title, short(quantity.name), { hovermode: "x unified" });
        plan.xaxis.type = a.log ? "log" : "linear";
        plan.yaxis.hoverformat = ".4g";
        show(find("diagnostic"), traces, plan);
      }
    }

    function drawCosts() {
      for (const [name, key, title] of [
        ["speed", "speed", "tokens/s"],
        ["memory", "memory", "peak memory"],
      ]) {
        const traces = table.arms.flatMap((arm, at) => {
          if (!isShown(at) || !finite(arm.loss) || !finite(arm[key])) return [];
          return [{
            ...line(arm, [arm[key]], [arm.loss]), mode: "markers+text", text: [`  ${short(arm.name)}`],
            textposition: "middle right", textfont: { color: css("--ink") }, cliponaxis: false,
            marker: { symbol: arm.symbol, size: 11, color: css(arm.color) },
            error_y: arm.ci && arm.ci.every(finite) ? {
              type: "data", symmetric: false, array: [arm.ci[1] - arm.loss],
              arrayminus: [arm.loss - arm.ci[0]], color: css(arm.color), thickness: 1.5, width: 0,
            } : undefined,
            hovertemplate: "%{x:.4s}, %{y:.4f}",
          }];
        });
        const plan = layout(title, `loss, nats/${table.per}`, { hovermode: "closest" });
        plan.yaxis.hoverformat = ".4f";
        const xs = traces.flatMap((t) => t.x);
        const pad = 0.16 * (Math.max(...xs) - Math.min(...xs) || Math.abs(xs[0]) || 1);
        if (key === "memory") Object.assign(plan, { xaxis: { ...plan.xaxis, ticksuffix: "B" } });
        if (xs.length) plan.xaxis.range = [Math.min(...xs) - pad, Math.max(...xs) + 1.6 * pad];
        show(find(name), traces, plan);
      }
    }

    function drawAll() {
      if (find("losses")) { drawLosses(); drawGaps(); }
      drawTuning();
      drawDiagnostics();
      drawCosts();
    }

    section.addEventListener("change", (event) => {
      const at = event.target.dataset.arm;
      if (at !== undefined) event.target.checked ? hidden.delete(Number(at)) : hidden.add(Number(at));
      if (at !== undefined || event.target.type === "radio" || event.target.tagName === "SELECT") drawAll();
    });
    section.addEventListener("click", (event) => {
      const all = event.target.dataset && event.target.dataset.all;
      if (all === undefined) return;
      section.querySelectorAll("input[data-arm]").forEach((box) => {
        box.checked = Boolean(all);
        all ? hidden.delete(Number(box.dataset.arm)) : hidden.add(Number(box.dataset.arm));
      });
      drawAll();
    });
    return drawAll;
  }

  // ---- sorting

  function makeSortable(table) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, column) => {
      if (!("sort" in head.dataset)) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const ascending = head.getAttribute("aria-sort") !== "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", ascending ? "ascending" : "descending");
        sortRows(table.tBodies[0], column, ascending);
      });
    });
  }

  function sortRows(body, column, ascending) {
    const value = (row) => row.cells[column].dataset.v || "";
    const rows = [...body.rows];
    const words = rows.some((row) => value(row) !== "" && Number.isNaN(Number(value(row).replace("inf", "Infinity"))));
    const key = (row) => (words ? value(row) : Number(value(row).replace("inf", "Infinity")));
    rows.sort((a, b) => {
      if (value(a) === "" || value(b) === "") return (value(a) === "") - (value(b) === "");
      const order = words ? key(a).localeCompare(key(b)) : key(a) - key(b);
      return ascending ? order : -order;
    });
    body.append(...rows);
  }

  // ---- begin

  root.classList.add("js");
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  const draws = [...document.querySelectorAll("section[data-table]")].map((section) =>
    makeTable(section, data.tables[Number(section.dataset.table)]));
  const drawAll = () => draws.forEach((draw) => draw());
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", drawAll);
  drawAll();
})();
