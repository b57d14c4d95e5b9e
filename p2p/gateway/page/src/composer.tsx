import { useRef, useState } from "preact/hooks";

import { Send, Stop } from "./icons.tsx";
import { gram, nanoOf } from "./money.ts";
import { PRESETS, type Preferences, TIERS } from "./preferences.ts";

interface Given {
  models: string[];
  preferences: Preferences;
  prefer: (change: Partial<Preferences>) => void;
  busy: boolean;
  ask: (text: string) => void;
  stop: () => void;
}

/** Where one writes, and says on what terms. Enter sends, Escape stops. */
export function Composer({ models, preferences, prefer, busy, ask, stop }: Given) {
  const [text, setText] = useState("");
  const box = useRef<HTMLTextAreaElement>(null);
  const sendable = text.trim() !== "" && models.length > 0;
  function send() {
    if (busy || !sendable) return;
    ask(text.trim());
    setText("");
  }
  function onKey(event: KeyboardEvent) {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      send();
    } else if (event.key === "Escape" && busy) stop();
  }
  return (
    <div class="composer">
      <form
        onSubmit={(event) => {
          event.preventDefault();
          send();
        }}
      >
        <div class="box">
          <textarea
            ref={box} rows={1} value={text} aria-label="Your message" placeholder="Ask anything" autofocus
            onInput={(event) => setText(event.currentTarget.value)} onKeyDown={onKey}
          />
          {busy ? (
            <button type="button" class="main" aria-label="Stop" title="Stop: what came is paid, and no more" onClick={stop}><Stop /></button>
          ) : (
            <button type="submit" class="main" aria-label="Send" disabled={!sendable}><Send /></button>
          )}
        </div>
        <Terms models={models} preferences={preferences} prefer={prefer} />
      </form>
    </div>
  );
}

function Terms({ models, preferences, prefer }: Pick<Given, "models" | "preferences" | "prefer">) {
  return (
    <div class="terms" role="group" aria-label="Terms">
      <label>
        <span>Model</span>
        <select aria-label="Model" value={preferences.model} disabled={models.length === 0} onChange={(event) => prefer({ model: event.currentTarget.value })}>
          {models.length === 0 && <option value="">none on offer</option>}
          {models.map((model) => <option key={model} value={model}>{model.split("/").at(-1)}</option>)}
        </select>
      </label>
      <label>
        <span>Preset</span>
        <select aria-label="Preset" value={preferences.preset} onChange={(event) => prefer({ preset: event.currentTarget.value as Preferences["preset"] })}>
          {PRESETS.map((preset) => <option key={preset} value={preset}>{preset || "gateway's own"}</option>)}
        </select>
      </label>
      <label>
        <span>Tier</span>
        <select aria-label="Tier" value={preferences.tier} onChange={(event) => prefer({ tier: event.currentTarget.value as Preferences["tier"] })}>
          {TIERS.map((tier) => <option key={tier} value={tier}>{tier || "by preset"}</option>)}
        </select>
      </label>
      <PriceCap nano={preferences.priceMaxNano} change={(priceMaxNano) => prefer({ priceMaxNano })} />
    </div>
  );
}

function PriceCap({ nano, change }: { nano: number | null; change: (nano: number | null) => void }) {
  const [typed, setTyped] = useState(nano === null ? "" : gram(nano));
  const wrong = nanoOf(typed) === undefined;
  return (
    <label title="The most that a million tokens of an answer may cost, in GRAM">
      <span>Price cap</span>
      <input
        aria-label="Price cap, GRAM for a million tokens of an answer" inputMode="decimal" placeholder="no cap"
        value={typed} aria-invalid={wrong}
        onInput={(event) => {
          setTyped(event.currentTarget.value);
          const read = nanoOf(event.currentTarget.value);
          if (read !== undefined) change(read);
        }}
      />
      <span>GRAM/M</span>
    </label>
  );
}
