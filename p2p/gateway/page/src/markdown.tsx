/** Markdown of an answer as elements. No HTML is ever made of it: tags that a model writes are shown as text, links
 * lead only to web pages and mail, and pictures, which would tell a stranger's server that they were seen, stay words. */
import { Lexer, type Token, type Tokens } from "marked";
import type { ComponentChildren } from "preact";
import { memo } from "preact/compat";

import { CopyButton } from "./copy.tsx";
import { safeHref } from "./links.ts";

export function Markdown({ text }: { text: string }) {
  return <>{Lexer.lex(text, { gfm: true, breaks: true }).map((token, at) => <Block key={at} raw={token.raw} token={token} />)}</>;
}

/** While an answer grows, blocks that stand already are left as they are. */
const Block = memo(
  ({ token }: { raw: string; token: Token }) => <>{block(token)}</>,
  (before, after) => before.raw === after.raw && before.token.type === after.token.type,
);

function block(token: Token): ComponentChildren {
  switch (token.type) {
    case "paragraph":
      return <p>{inline(token.tokens)}</p>;
    case "heading":
      return heading(token as Tokens.Heading);
    case "code":
      return <Code code={token as Tokens.Code} />;
    case "blockquote":
      return <blockquote>{blocks(token.tokens)}</blockquote>;
    case "list":
      return list(token as Tokens.List);
    case "table":
      return table(token as Tokens.Table);
    case "hr":
      return <hr />;
    case "space":
    case "def":
      return null;
    case "text":
      return token.tokens ? inline(token.tokens) : token.text;
    default:
      return token.raw;
  }
}

function blocks(tokens: Token[] | undefined): ComponentChildren {
  return tokens?.map(block);
}

/** Two below the headings of the page itself, so that whoever goes from heading to heading is not led astray. */
function heading(token: Tokens.Heading): ComponentChildren {
  const Level = `h${Math.min(token.depth + 2, 6)}` as "h3";
  return <Level class={`depth-${token.depth}`}>{inline(token.tokens)}</Level>;
}

function Code({ code }: { code: Tokens.Code }) {
  const language = code.lang?.split(/\s/)[0] || "text";
  return (
    <figure class="code">
      <figcaption>
        {language} <CopyButton text={code.text} what="code" />
      </figcaption>
      <pre tabIndex={0} aria-label={`${language} code`}>
        <code>{code.text}</code>
      </pre>
    </figure>
  );
}

function list(token: Tokens.List): ComponentChildren {
  const items = token.items.map((item, at) => (
    <li key={at} class={item.task ? "task" : ""}>
      {blocks(item.tokens)}
    </li>
  ));
  return token.ordered ? <ol start={Number(token.start) || 1}>{items}</ol> : <ul>{items}</ul>;
}

function table(token: Tokens.Table): ComponentChildren {
  const cells = (Cell: "th" | "td", row: Tokens.TableCell[]) =>
    row.map((cell, at) => (
      <Cell key={at} class={cell.align ?? ""}>
        {inline(cell.tokens)}
      </Cell>
    ));
  return (
    <div class="scrolls" tabIndex={0} role="region" aria-label="table">
      <table>
        <thead>
          <tr>{cells("th", token.header)}</tr>
        </thead>
        <tbody>
          {token.rows.map((row, at) => (
            <tr key={at}>{cells("td", row)}</tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function inline(tokens: Token[] | undefined): ComponentChildren {
  return tokens?.map(inlineOne);
}

function inlineOne(token: Token): ComponentChildren {
  switch (token.type) {
    case "strong":
      return <strong>{inline(token.tokens)}</strong>;
    case "em":
      return <em>{inline(token.tokens)}</em>;
    case "del":
      return <del>{inline(token.tokens)}</del>;
    case "codespan":
      return <code>{token.text}</code>;
    case "br":
      return <br />;
    case "checkbox":
      return <input type="checkbox" disabled checked={token.checked} aria-label={token.checked ? "done" : "open"} />;
    case "link":
      return link(token as Tokens.Link);
    case "image":
      return `[picture: ${token.text || token.href}]`;
    case "text":
      return token.tokens ? inline(token.tokens) : token.text;
    case "escape":
      return token.text;
    default:
      return token.raw;
  }
}

function link(token: Tokens.Link): ComponentChildren {
  const href = safeHref(token.href);
  if (href === null) return token.raw;
  return (
    <a href={href} target="_blank" rel="noopener noreferrer nofollow">
      {inline(token.tokens)}
    </a>
  );
}
