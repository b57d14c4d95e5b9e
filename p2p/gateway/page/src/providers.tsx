import { short } from "./conversation.ts";
import { gram } from "./money.ts";
import { Looking, Nothing, ProblemBox } from "./notices.tsx";
import { useAsked } from "./use.ts";

interface Provider {
  peer: string;
  tier: string;
  rtt_ms: number;
  free_tokens: number;
  channel_open: boolean;
  standing: { failure_permille: number };
  evidence: Record<string, number>; // how often it did what
  models: Model[];
}

interface Model {
  id: string;
  quantisation: string;
  context: number;
  price: { input: number; output: number };
  ttft_ms: number;
  tokens_per_s: number;
  slots_free: number;
  slots_total: number;
}

const LOOK_EVERY_S = 15;

/** Who sells what, now. */
export function Providers() {
  const { value, problem } = useAsked<{ providers: Provider[] }>("api/providers", LOOK_EVERY_S);
  const providers = value?.providers;
  return (
    <div>
      <header>
        <h1>Providers</h1>
        <p>Those that answered a moment ago. Prices are in GRAM for a million tokens; speeds are what they promise, reputation is what this home has seen.</p>
      </header>
      {problem && <ProblemBox problem={problem} />}
      {!value && !problem && <Looking />}
      {providers?.length === 0 && <Nothing title="Nobody is here yet">This page looks again every {LOOK_EVERY_S} seconds. To be a provider yourself, run: python -m p2p.node provide</Nothing>}
      {providers && providers.length > 0 && <Table providers={providers} />}
    </div>
  );
}

function Table({ providers }: { providers: Provider[] }) {
  return (
    <table class="records">
      <caption class="hidden">Providers</caption>
      <thead>
        <tr>
          <th scope="col">Provider</th>
          <th scope="col">Model</th>
          <th scope="col" class="figure">Price in</th>
          <th scope="col" class="figure">Price out</th>
          <th scope="col" class="figure">First token</th>
          <th scope="col" class="figure">Tokens/s</th>
          <th scope="col" class="figure">Free</th>
          <th scope="col">Tier</th>
          <th scope="col" class="figure">Answers that fail</th>
        </tr>
      </thead>
      <tbody>
        {providers.flatMap((one) => one.models.map((model) => <Row key={one.peer + model.id} one={one} model={model} />))}
      </tbody>
    </table>
  );
}

function Row({ one, model }: { one: Provider; model: Model }) {
  return (
    <tr>
      <td class="mono" title={one.peer}>
        {short(one.peer)}
        {one.channel_open && <small>channel open</small>}
      </td>
      <td data-name="Model">
        <span>
          {model.id.split("/").at(-1)}
          <small>{[model.quantisation !== "none" && model.quantisation, `${model.context.toLocaleString("en")} tokens`].filter(Boolean).join(", ")}</small>
        </span>
      </td>
      <td data-name="Price in" class="figure">{gram(model.price.input)}</td>
      <td data-name="Price out" class="figure">{gram(model.price.output)}</td>
      <td data-name="First token" class="figure">{model.ttft_ms + one.rtt_ms} ms</td>
      <td data-name="Tokens/s" class="figure">{model.tokens_per_s}</td>
      <td data-name="Free slots" class="figure">{model.slots_free} of {model.slots_total}</td>
      <td data-name="Tier"><span class="badge">{one.tier}</span></td>
      <td data-name="Answers that fail" class="figure"><Reputation one={one} /></td>
    </tr>
  );
}

/** What this home has seen of it; of a stranger, nothing. */
function Reputation({ one: { standing, evidence } }: { one: Provider }) {
  const seen = Object.values(evidence).reduce((before, count) => before + count, 0);
  if (seen === 0) return <span class="muted">not known yet</span>;
  const audited = (evidence["audit_passed"] ?? 0) + (evidence["audit_failed"] ?? 0);
  return (
    <span>
      {standing.failure_permille / 10} %
      <small>
        seen {seen}{audited > 0 && `, audits passed ${evidence["audit_passed"] ?? 0} of ${audited}`}
      </small>
    </span>
  );
}
