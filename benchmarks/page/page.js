(() => {
  "use strict";
  const root = document.documentElement;
  const system = matchMedia("(prefers-color-scheme: dark)");
  const charts = JSON.parse(document.getElementById("charts").textContent);
  let chosen = null;

  const probe = root.appendChild(document.createElement("i"));  // turns a variable into the colour of the current scheme
  const variable = (name) => {
    probe.style.color = `var(${name})`;
    return getComputedStyle(probe).color;
  };
  const inked = (value) => {
    if (typeof value === "string") return value.startsWith("--") ? variable(value) : value;
    if (Array.isArray(value)) return value.map(inked);
    if (value === null || typeof value !== "object") return value;
    return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, inked(inner)]));
  };
  const axis = (given) => ({
    gridcolor: "--rule", linecolor: "--rule", zerolinecolor: "--rule", automargin: true, ticks: "outside", tickcolor: "--rule",
    ...given, title: { standoff: 10, ...(given.title || {}) },
  });
  const paper = { one: 640, beside: 310 };  // widths in pixels at which charts fit on A4 and on letter
  const layout = (given) => inked({
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)", margin: { l: 52, r: 14, t: 12, b: 44 },
    font: { family: getComputedStyle(document.body).fontFamily, size: 12.5, color: "--ink" },
    hoverlabel: { bgcolor: "--card", bordercolor: "--rule", font: { color: "--ink" } },
    showlegend: given.showlegend || false, hovermode: "closest", dragmode: false,
    legend: { orientation: "h", x: 0, y: 1.02, yanchor: "bottom" },
    ...given, xaxis: axis(given.xaxis), yaxis: axis(given.yaxis),
  });
  const draw = (printed = false) => {
    for (const chart of charts) {
      const legend = chart.data.some((trace) => trace.showlegend);
      const place = document.getElementById("chart-" + chart.name);
      const width = place.closest(".stacked") ? paper.one : paper.beside;
      const size = printed ? { width, autosize: false } : { autosize: true };
      const options = { responsive: true, displayModeBar: false };
      Plotly.react(place, inked(chart.data), layout({ ...chart.layout, ...size, showlegend: legend }), options);
    }
  };
  const theme = (name, printed) => {
    if (name) root.dataset.theme = name;
    else delete root.dataset.theme;
    draw(printed);
  };
  document.getElementById("theme").addEventListener("click", () => {
    chosen = (chosen || (system.matches ? "dark" : "light")) === "dark" ? "light" : "dark";
    theme(chosen);
  });
  system.addEventListener("change", () => theme(chosen));
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open])")];
    folded.forEach((part) => { part.open = true; });
    theme("light", true);
  });
  addEventListener("afterprint", () => {
    folded.forEach((part) => { part.open = false; });
    theme(chosen);
  });
  theme(chosen);
})();
