import type { ComponentChildren } from "preact";
import { useReducer, useRef } from "preact/hooks";

import { Answer } from "./answer.tsx";
import { Failed, ask } from "./api.ts";
import { Composer } from "./composer.tsx";
import { type Answer as AnswerTurn, type News, type Turn, heard, isOpen } from "./conversation.ts";
import { Cocoon } from "./icons.tsx";
import { amount } from "./money.ts";
import { ProblemBox } from "./notices.tsx";
import type { Preferences } from "./preferences.ts";
import { type Problem, problemOf } from "./problems.ts";
import { useFollowing } from "./use.ts";

const IDEAS = ["Explain silk in two sentences", "Write a haiku about a mulberry tree", "What is a payment channel?"];

/** A conversation, and what goes on in it. It lasts as long as the page is open. */
export function useConversation(preferences: Preferences, paid: () => void) {
  const [turns, tell] = useReducer<Turn[], News>(heard, []);
  const under = useRef<AbortController | null>(null);

  async function answer(asked: Turn[]) {
    const leaving = (under.current = new AbortController());
    let cut = false;
    try {
      for await (const heard of ask(asked, preferences, leaving.signal)) {
        if ("text" in heard) tell({ news: "piece", text: heard.text });
        else if ("account" in heard) tell({ news: "account", account: heard.account });
        else cut = heard.cut;
      }
      tell({ news: "over", cut });
    } catch (error) {
      if (leaving.signal.aborted) tell({ news: "stopped" });
      else tell({ news: "failed", problem: error instanceof Failed ? error.problem : problemOf(0, null) });
    } finally {
      paid();
    }
  }
  return {
    turns,
    busy: isOpen(turns.at(-1)),
    ask(text: string) {
      tell({ news: "asked", text });
      void answer(heard(turns, { news: "asked", text }));
    },
    again() {
      tell({ news: "again" });
      void answer(turns.slice(0, -1));
    },
    stop: () => under.current?.abort(),
    clear() {
      under.current?.abort();
      tell({ news: "cleared" });
    },
  };
}

interface Given {
  conversation: ReturnType<typeof useConversation>;
  models: string[];
  preferences: Preferences;
  prefer: (change: Partial<Preferences>) => void;
  purse: ComponentChildren;
  problem: Problem | null; // with finding out what is on offer
}

export function Chat({ conversation, models, preferences, prefer, purse, problem }: Given) {
  const { turns, busy } = conversation;
  const following = useFollowing<HTMLDivElement>(turns);
  function ask(text: string) {
    following.follow();
    conversation.ask(text);
  }
  return (
    <section class="chat" aria-label="Chat">
      <div class="chat-head">
        <span class="brand">
          <Cocoon /> Bombyx
        </span>
        <Heard turns={turns} />
        {purse}
        {turns.length > 0 && (
          <button type="button" class="quiet" aria-label="New conversation" onClick={conversation.clear}>
            New <span class="wide">conversation</span>
          </button>
        )}
      </div>
      <div class="talk" ref={following.box} onScroll={following.onScroll} tabIndex={0} role="region" aria-label="Conversation">
        {turns.length === 0 ? <Welcome ask={ask} able={models.length > 0} problem={problem} /> : <Turns turns={turns} again={conversation.again} />}
      </div>
      <Composer models={models} preferences={preferences} prefer={prefer} busy={busy} ask={ask} stop={conversation.stop} />
    </section>
  );
}

function Turns({ turns, again }: { turns: Turn[]; again: () => void }) {
  return (
    <ol>
      {turns.map((turn) =>
        turn.who === "user" ? (
          <li class="asked" key={turn.id}>
            <h2 class="hidden">You</h2>
            {turn.text}
          </li>
        ) : (
          <Answer key={turn.id} answer={turn} again={again} />
        ),
      )}
    </ol>
  );
}

function Welcome({ ask, able, problem }: { ask: (text: string) => void; able: boolean; problem: Problem | null }) {
  return (
    <div class="welcome">
      <Cocoon />
      <h1>Ask the network</h1>
      <p>
        Your question goes, encrypted, straight to a provider that sells answers; you pay for the words as they arrive. In the
        open tier its owner could read what you ask.
      </p>
      {problem && <ProblemBox problem={problem} />}
      {!able && !problem && <p role="status">Looking for providers. Where nobody sells answers yet, this page finds the first who does.</p>}
      <div class="ideas">
        {IDEAS.map((idea) => (
          <button type="button" key={idea} disabled={!able} onClick={() => ask(idea)}>
            {idea}
          </button>
        ))}
      </div>
    </div>
  );
}

/** For those who listen: not every word as it comes, but that one is answering, and how it ended. */
function Heard({ turns }: { turns: Turn[] }) {
  const last = turns.at(-1);
  return (
    <p class="hidden" role="status">
      {last?.who === "assistant" ? said(last) : ""}
    </p>
  );
}

function said(answer: AnswerTurn): string {
  const cost = answer.account ? `, ${amount(answer.account.cost_nano)}` : "";
  switch (answer.state) {
    case "waiting":
    case "growing":
      return ["Answering.", ...answer.handovers].join(" ");
    case "failed":
      return "";
    default:
      return `${answer.state === "stopped" ? "Stopped" : "The answer is complete"}${cost}.`;
  }
}
