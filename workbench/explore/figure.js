// A figure of a panel. Plotly is 5 MB to send and seconds to load, and every plotly widget brings
// its own: here the first figure of a panel brings it, the page loads it once, the others wait.
const page = (globalThis.workbenchPlotly ??= Promise.withResolvers());

export default () => {
  let figure;
  let ready;
  return {
    initialize(context) {
      const source = context.model.get("_plotly");
      if (source && !page.address) {
        page.address = URL.createObjectURL(new Blob([source], { type: "text/javascript" }));
        page.resolve(import(page.address));
      }
      // Not awaited: anywidget gives up on what takes more than two seconds here.
      ready = page.promise.then((plotly) => {
        figure = plotly.default();
        figure.initialize(context);
      });
    },
    async render(context) {
      await ready;
      return figure.render(context);
    },
  };
};
