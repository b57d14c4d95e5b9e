/** The page as a Telegram Mini App. Telegram hands over what it has in the address's fragment and takes events from the
 * window around the page or from an object that its apps put into it; its own script, which would come from a
 * third party's server, is not loaded. After https://core.telegram.org/bots/webapps and its script's source. */

/** What the page was opened with. `initData` is signed by Telegram, and only the gateway can tell whether it is true. */
export interface Launch {
  initData: string;
  theme: Record<string, string>;
}

/** What stands in the fragment; `null` where Telegram did not open the page. */
export function launchOf(fragment: string): Launch | null {
  const given = new URLSearchParams(fragment.replace(/^#/, ""));
  const initData = given.get("tgWebAppData");
  if (!initData) return null;
  return { initData, theme: themeOf(given.get("tgWebAppThemeParams") ?? "{}") };
}

/** Telegram's names of its colours, and ours. */
const OURS: Record<string, string> = {
  bg_color: "--ground",
  secondary_bg_color: "--raised",
  text_color: "--ink",
  hint_color: "--muted",
  link_color: "--accent",
  button_color: "--accent-fill",
  button_text_color: "--on-accent",
  section_separator_color: "--line",
};

/** Our properties with the colours that Telegram gave; anything that is no colour is left out. */
export function themeOf(json: string): Record<string, string> {
  let given: unknown;
  try {
    given = JSON.parse(json);
  } catch {
    return {};
  }
  if (typeof given !== "object" || given === null) return {};
  const colours = Object.entries(given).filter(([, value]) => typeof value === "string" && /^#[0-9a-f]{6}$/i.test(value));
  return Object.fromEntries(colours.flatMap(([name, value]) => (OURS[name] ? [[OURS[name], value]] : [])));
}

/** Whether a colour `#rrggbb` is a dark one, by the luma of Rec. 601. */
export function isDark(colour: string): boolean {
  const [red = 0, green = 0, blue = 0] = [1, 3, 5].map((at) => parseInt(colour.slice(at, at + 2), 16));
  return 0.299 * red + 0.587 * green + 0.114 * blue < 128;
}

interface Around {
  TelegramWebviewProxy?: { postEvent(name: string, data: string): void };
}

/** Tell Telegram something, through whichever of its two ways there is. */
export function tellTelegram(event: string): void {
  const { TelegramWebviewProxy } = window as Around;
  if (TelegramWebviewProxy) TelegramWebviewProxy.postEvent(event, "{}");
  else if (window.parent !== window)
    window.parent.postMessage(JSON.stringify({ eventType: event, eventData: {} }), "https://web.telegram.org");
}
