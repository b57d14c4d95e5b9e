import { useEffect, useMemo, useState } from "preact/hooks";

import { usePass } from "./api.ts";
import { Channels } from "./channels.tsx";
import { Chat, useConversation } from "./chat.tsx";
import { EarningsPage } from "./earnings.tsx";
import { Bars, Channel, Cocoon, People, Sliders, Talk } from "./icons.tsx";
import { type Preferences, preferencesFrom } from "./preferences.ts";
import { Providers } from "./providers.tsx";
import { type Allowance, Purse } from "./purse.tsx";
import { Settings } from "./settings.tsx";
import type { Launch } from "./telegram.ts";
import { useAsked, usePlace } from "./use.ts";

const KEPT = "bombyx.preferences";
const KEY = "bombyx.key";

const PLACES = [
  ["chat", "Chat", Talk],
  ["providers", "Providers", People],
  ["channels", "Channels", Channel],
  ["earnings", "Earnings", Bars],
  ["settings", "Settings", Sliders],
] as const;
const NAMES = PLACES.map(([place]) => place);

function showKey(launch: Launch | null): void {
  const key = sessionStorage.getItem(KEY);
  usePass(launch ? { scheme: "tma", secret: launch.initData } : key ? { scheme: "Bearer", secret: key } : null);
}

export function App({ launch }: { launch: Launch | null }) {
  useMemo(() => showKey(launch), [launch]);
  const place = usePlace(NAMES);
  const [preferences, setPreferences] = useState<Preferences>(() => preferencesFrom(localStorage.getItem(KEPT)));
  const allowance = useAsked<Allowance>("api/allowance", 15);
  const catalogue = useAsked<{ data: { id: string }[] }>("v1/models", 15);
  const models = catalogue.value?.data.map((model) => model.id) ?? [];
  const model = models.includes(preferences.model) ? preferences.model : (models[0] ?? "");
  const wanted = { ...preferences, model };
  const conversation = useConversation(wanted, allowance.again);

  useEffect(() => localStorage.setItem(KEPT, JSON.stringify(preferences)), [preferences]);
  useEffect(() => {
    if (preferences.theme === "auto") delete document.documentElement.dataset["theme"];
    else document.documentElement.dataset["theme"] = preferences.theme;
  }, [preferences.theme]);

  const prefer = (change: Partial<Preferences>) => setPreferences((before) => ({ ...before, ...change }));
  function keep(key: string) {
    if (key) sessionStorage.setItem(KEY, key);
    else sessionStorage.removeItem(KEY);
    showKey(launch);
    allowance.again();
    catalogue.again();
  }
  return (
    <div class="shell">
      <a class="skip" href="#open" onClick={(event) => { event.preventDefault(); document.getElementById("open")?.focus(); }}>Skip to content</a>
      <Side place={place} allowance={allowance.value} />
      <main class="open" id="open" tabIndex={-1}>
        {place === "chat" ? (
          <Chat conversation={conversation} models={models} preferences={wanted} prefer={prefer} problem={catalogue.problem} purse={allowance.value && <Purse allowance={allowance.value} />} />
        ) : (
          <div class="page">
            {place === "providers" && <Providers />}
            {place === "channels" && <Channels />}
            {place === "earnings" && <EarningsPage />}
            {place === "settings" && <Settings preferences={preferences} prefer={prefer} keep={keep} inTelegram={launch !== null} />}
          </div>
        )}
      </main>
    </div>
  );
}

function Side({ place, allowance }: { place: string; allowance: Allowance | null }) {
  return (
    <nav class="side" aria-label="Places">
      <span class="brand"><Cocoon /> Bombyx</span>
      <ul class="places">
        {PLACES.map(([name, title, Icon]) => (
          <li key={name}>
            <a href={`#${name}`} aria-current={place === name ? "page" : undefined}><Icon /> {title}</a>
          </li>
        ))}
      </ul>
      {allowance && <Purse allowance={allowance} />}
    </nav>
  );
}
