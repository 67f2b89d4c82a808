/* Paper is white: print the light theme, whichever one is on screen. */
(function () {
  "use strict";
  const page = document.documentElement;
  let onScreen = null;
  window.addEventListener("beforeprint", () => {
    onScreen = page.dataset.theme;
    page.dataset.theme = "light";
  });
  window.addEventListener("afterprint", () => {
    if (onScreen) page.dataset.theme = onScreen;
    onScreen = null;
  });
})();
