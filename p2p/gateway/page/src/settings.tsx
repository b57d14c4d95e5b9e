import { useState } from "preact/hooks";

import { amount } from "./money.ts";
import { MAX_TOKENS_LIMIT, type Preferences, THEMES } from "./preferences.ts";
import { useAsked } from "./use.ts";

/** What `api/budget` says to who may see the accounts, as far as it is shown. */
interface Budget {
  free: boolean;
  wallet: { balance_nano: number | null } | null; // of a balance that cannot be asked for, `null`
  deposits: { day_max_nano: number; today_nano: number };
  answers: { answer_max_nano: number | null; today_nano: number; all_nano: number; count: number };
}

interface Given {
  preferences: Preferences;
  prefer: (change: Partial<Preferences>) => void;
  keep: (key: string) => void;
  inTelegram: boolean;
}

export function Settings({ preferences, prefer, keep, inTelegram }: Given) {
  return (
    <div>
      <header>
        <h1>Settings</h1>
        <p>They stay in this browser. Conversations are kept nowhere: to close the page is to forget them.</p>
      </header>
      <div class="fields">
        <div class="field">
          <label for="max-tokens">Longest answer</label>
          <input
            id="max-tokens" type="number" min={1} max={MAX_TOKENS_LIMIT} value={preferences.maxTokens}
            onChange={(event) => prefer({ maxTokens: Math.max(1, Math.min(MAX_TOKENS_LIMIT, Math.round(event.currentTarget.valueAsNumber) || 1)) })}
          />
          <p>In tokens, about three quarters of a word each. What an answer could cost at this length must fit the budget.</p>
        </div>
        <fieldset class="field">
          <legend>Colours</legend>
          <div class="choices">
            {THEMES.map((theme) => (
              <label key={theme}>
                <input type="radio" name="theme" checked={preferences.theme === theme} onChange={() => prefer({ theme })} />
                {theme === "auto" ? "as the device has it" : theme}
              </label>
            ))}
          </div>
        </fieldset>
        {inTelegram ? (
          <div class="field">
            <label>Telegram</label>
            <p>You are known to this gateway by what Telegram signed when it opened the page.</p>
          </div>
        ) : (
          <Key keep={keep} />
        )}
        <BudgetOf />
      </div>
    </div>
  );
}

function Key({ keep }: { keep: (key: string) => void }) {
  const [typed, setTyped] = useState("");
  const [kept, setKept] = useState(false);
  return (
    <form
      class="field"
      onSubmit={(event) => {
        event.preventDefault();
        keep(typed.trim());
        setTyped("");
        setKept(true);
      }}
    >
      <label for="key">Key</label>
      <div style={{ display: "flex", gap: "0.5rem" }}>
        <input id="key" type="password" autocomplete="off" style={{ flex: 1 }} value={typed} onInput={(event) => setTyped(event.currentTarget.value)} />
        <button type="submit">{typed ? "Use" : "Forget"}</button>
      </div>
      <p role="status">{kept ? "Done." : "Only where whoever runs this gateway gave you one. It is forgotten when this tab is closed."}</p>
    </form>
  );
}

function BudgetOf() {
  const { value: budget } = useAsked<Budget>("api/budget", 15);
  if (!budget || budget.free) return null;
  const { answers, deposits, wallet } = budget;
  const rows: [string, string][] = [
    ["Answers today", amount(answers.today_nano)],
    ["Answers so far", `${amount(answers.all_nano)} for ${answers.count}`],
    ["Deposits today", `${amount(deposits.today_nano)} of ${amount(deposits.day_max_nano)}`],
    ["One answer, at most", answers.answer_max_nano === null ? "no limit of its own" : amount(answers.answer_max_nano)],
    ["Wallet", wallet?.balance_nano == null ? "cannot be asked now" : amount(wallet.balance_nano)],
  ];
  return (
    <div class="field">
      <h2>Budget</h2>
      <dl class="pairs">
        {rows.map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd class="number">{value}</dd>
          </div>
        ))}
      </dl>
      <p>The limits are set where the gateway runs.</p>
    </div>
  );
}
