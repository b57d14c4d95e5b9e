import { Chevron, Handover, Thread } from "./icons.tsx";
import { type Account, type Answer as AnswerTurn, type Check, type Part, short } from "./conversation.ts";
import { Markdown } from "./markdown.tsx";
import { amount, gram } from "./money.ts";
import { ProblemBox } from "./notices.tsx";

/** One answer: what was said, who gave it, what it cost, and what was looked into. */
export function Answer({ answer, again }: { answer: AnswerTurn; again: () => void }) {
  const growing = answer.state === "growing";
  return (
    <li class="answer" aria-busy={growing || answer.state === "waiting"}>
      <h2 class="hidden">Answer</h2>
      {answer.state === "waiting" ? (
        <p class="waiting">
          <Thread /> Asking providers for their prices…
        </p>
      ) : (
        answer.text !== "" && (
          <div class={growing ? "prose growing" : "prose"}>
            <Markdown text={answer.text} />
          </div>
        )
      )}
      {answer.handovers.map((said) => (
        <p class="note" key={said}>
          <Handover /> <span>{said}</span>
        </p>
      ))}
      {answer.problem && (
        <ProblemBox problem={answer.problem}>
          <button type="button" onClick={again}>
            Ask again
          </button>
        </ProblemBox>
      )}
      {answer.account && <AccountOf account={answer.account} answer={answer} />}
    </li>
  );
}

const ENDS: Partial<Record<AnswerTurn["state"], string>> = {
  growing: "answering…",
  cut: "cut at the most tokens allowed",
  stopped: "stopped: what came is paid",
};

function AccountOf({ account, answer }: { account: Account; answer: AnswerTurn }) {
  // Who stops an answer is not told any more what it came to; the running budget is.
  const settled = answer.state === "whole" || answer.state === "cut" || answer.state === "failed";
  const checks = account.parts.flatMap((part) => part.checks);
  return (
    <details class="account" onToggle={(event) => event.currentTarget.open && event.currentTarget.scrollIntoView({ block: "nearest" })}>
      <summary>
        <span class="mono">{account.parts.map((part) => short(part.provider)).join(" › ")}</span>
        <span class="number">{price(account)}</span>
        {settled && <span class="number cost">{account.free ? "free" : amount(account.cost_nano)}</span>}
        {settled && checks.length > 0 && <span>{summaryOf(checks)}</span>}
        {ENDS[answer.state] && <span>{ENDS[answer.state]}</span>}
        <span class="more">
          Details <Chevron />
        </span>
      </summary>
      <div class="account-body">
        {account.parts.map((part, at) => (
          <PartOf key={at} part={part} number={account.parts.length > 1 ? at + 1 : null} />
        ))}
        <p>
          Tier <b>{account.tier}</b>; chosen because it was {account.why}; first token after {account.ttft_ms} ms, then{" "}
          {account.tokens_per_s} tokens a second.
        </p>
      </div>
    </details>
  );
}

function PartOf({ part, number }: { part: Part; number: number | null }) {
  return (
    <section>
      <h4>
        {number ? `Part ${number}: ` : ""}
        {short(part.provider)}
      </h4>
      <p>
        {gram(part.price.input)} in, {gram(part.price.output)} out a million; {part.prompt_tokens} tokens read, {part.completion_tokens} written, {amount(part.cost_nano)}
      </p>
      <p class="mono" style={{ overflowWrap: "anywhere" }}>
        {part.provider}
        {part.receipt && <><br />receipt {part.receipt}</>}
      </p>
      {part.checks.length > 0 && (
        <ul class="checks" style={{ marginTop: "0.6rem" }}>
          {part.checks.map((check) => (
            <CheckOf key={check.what} check={check} />
          ))}
        </ul>
      )}
    </section>
  );
}

const RESULTS: Record<Check["result"], string> = { passed: "passed", failed: "failed", not_checked: "not checked" };

function CheckOf({ check }: { check: Check }) {
  return (
    <li>
      <span class={`result ${check.result}`}>{RESULTS[check.result]}</span>
      <span>
        <b>{check.what}</b>: {check.detail}
      </span>
    </li>
  );
}

function price({ price: { input, output }, free }: Account): string {
  return free ? "out of its free allowance" : `${gram(input)} in, ${gram(output)} out a million`;
}

/** Never a verdict: how many of the things that could be looked into were, and how that went. */
function summaryOf(checks: Check[]): string {
  const count = (result: Check["result"]) => checks.filter((check) => check.result === result).length;
  const failed = count("failed");
  return [`${count("passed")} checks passed`, failed > 0 && `${failed} failed`, `${count("not_checked")} not made`].filter(Boolean).join(", ");
}
