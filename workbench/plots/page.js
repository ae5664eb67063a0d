// Figures carry a middle grey that reads on any page; here the page's own ink is known.
(() => {
  const figures = [...document.querySelectorAll(".figure")];
  const ink = () => getComputedStyle(document.documentElement).getPropertyValue("--ink").trim();
  // The share button would send the data to a server of plotly's.
  const settings = {responsive: true, displaylogo: false, showSendToCloud: false,
    plotlyServerURL: "",
    modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"]};
  for (const place of figures) {
    const spec = JSON.parse(place.parentNode.querySelector("script").textContent);
    spec.layout.font = {...spec.layout.font, color: ink()};
    spec.layout.modebar = {bgcolor: "rgba(0,0,0,0)"};
    Plotly.newPlot(place, spec.data, spec.layout, settings);
  }
  const redraw = () => figures.forEach((place) => Plotly.relayout(place, {"font.color": ink()}));
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw);
  matchMedia("print").addEventListener("change", redraw);
})();
