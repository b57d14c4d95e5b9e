import { useRef, useState } from "preact/hooks";

import { Failed, post } from "./api.ts";
import { short } from "./conversation.ts";
import { amount, gram } from "./money.ts";
import { Looking, Nothing, ProblemBox } from "./notices.tsx";
import { type Problem, problemOf } from "./problems.ts";
import { useAsked } from "./use.ts";

interface Channel {
  channel: string;
  provider: string;
  state: string;
  retired: boolean;
  deposited_nano: number;
  authorised_nano: number;
  delivered_nano: number;
  settled_nano: number;
}

/** Where the money is. */
export function Channels() {
  const { value, problem, again } = useAsked<{ channels: Channel[] }>("api/channels", 5);
  const channels = value?.channels;
  const [closing, setClosing] = useState<Channel | null>(null);
  return (
    <div>
      <header>
        <h1>Channels</h1>
        <p>Each holds a deposit for one provider. What you signed away, what was delivered for it and what was paid out on chain are three amounts; all are in GRAM.</p>
      </header>
      {problem && <ProblemBox problem={problem} />}
      {!value && !problem && <Looking />}
      {channels?.length === 0 && <Nothing title="No channels yet">The first paid answer opens one.</Nothing>}
      {channels && channels.length > 0 && <Table channels={channels} close={setClosing} />}
      {closing && (
        <Closing
          channel={closing}
          done={() => {
            setClosing(null);
            again();
          }}
        />
      )}
    </div>
  );
}

function Table({ channels, close }: { channels: Channel[]; close: (channel: Channel) => void }) {
  return (
    <table class="records">
      <caption class="hidden">Channels</caption>
      <thead>
        <tr>
          <th scope="col">Channel</th>
          <th scope="col">With</th>
          <th scope="col">State</th>
          <th scope="col" class="figure">Deposited</th>
          <th scope="col" class="figure">Authorised</th>
          <th scope="col" class="figure">Delivered</th>
          <th scope="col" class="figure">Settled</th>
          <th scope="col"><span class="hidden">Close</span></th>
        </tr>
      </thead>
      <tbody>
        {channels.map((one) => (
          <tr key={one.channel}>
            <td class="mono" title={one.channel}>{one.channel.slice(0, 8)}…</td>
            <td data-name="With" class="mono" title={one.provider}>{short(one.provider)}</td>
            <td data-name="State"><span class="badge">{one.retired ? `${one.state}, retired` : one.state}</span></td>
            <td data-name="Deposited" class="figure">{gram(one.deposited_nano)}</td>
            <td data-name="Authorised" class="figure">{gram(one.authorised_nano)}</td>
            <td data-name="Delivered" class="figure">{gram(one.delivered_nano)}</td>
            <td data-name="Settled" class="figure">{gram(one.settled_nano)}</td>
            <td>{one.state === "open" && <button type="button" aria-label={`Close ${one.channel.slice(0, 8)}`} onClick={() => close(one)}>Close</button>}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

/** Asks once more, since it costs a fee and the next answer of that provider another. */
function Closing({ channel, done }: { channel: Channel; done: () => void }) {
  const dialog = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  const [problem, setProblem] = useState<Problem | null>(null);
  async function close() {
    setBusy(true);
    setProblem(null);
    try {
      await post(`api/channels/${channel.channel}/close`, {});
      done();
    } catch (error) {
      setProblem(error instanceof Failed ? error.problem : problemOf(0, null));
    } finally {
      setBusy(false);
    }
  }
  return (
    <dialog ref={(shown: HTMLDialogElement | null) => { dialog.current = shown; if (shown && !shown.open) shown.showModal(); }} onClose={done} aria-labelledby="closing">
      <form onSubmit={(event) => { event.preventDefault(); void close(); }}>
        <h2 id="closing">Close channel {channel.channel.slice(0, 8)}…?</h2>
        <p>
          {short(channel.provider)} gets the {amount(channel.delivered_nano)} that it delivered, less what is settled already; the rest of
          the {amount(channel.deposited_nano)} comes back, less a fee. The provider has to be there to agree.
        </p>
        {problem && <ProblemBox problem={problem} />}
        <div class="actions">
          <button type="button" onClick={() => dialog.current?.close()}>Keep it</button>
          <button type="submit" class="main" disabled={busy}>{busy ? "Closing…" : "Close channel"}</button>
        </div>
      </form>
    </dialog>
  );
}
