import { render } from "preact";

import { App } from "./app.tsx";
import { isDark, launchOf, tellTelegram } from "./telegram.ts";

const launch = launchOf(location.hash);
if (launch) {
  const root = document.documentElement;
  for (const [property, colour] of Object.entries(launch.theme)) root.style.setProperty(property, colour);
  const ground = launch.theme["--ground"];
  if (ground) root.style.colorScheme = isDark(ground) ? "dark" : "light";
  history.replaceState(null, "", "#chat"); // what Telegram signed is nobody's to copy from the address
  tellTelegram("web_app_ready");
  tellTelegram("web_app_expand");
}
render(<App launch={launch} />, document.getElementById("page")!);
