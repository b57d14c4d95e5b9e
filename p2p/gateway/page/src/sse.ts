/** Reads server-sent events out of pieces of text, wherever these were cut: the `data` of each event in turn. */
export class EventReader {
  #rest = "";
  #data: string[] = [];

  /** The events that `text` completes. Comments, and fields other than `data`, say nothing to us. */
  read(text: string): string[] {
    const lines = (this.#rest + text).split(/\r\n|\n|\r(?!$)/);
    this.#rest = lines.pop() ?? "";
    const events: string[] = [];
    for (const line of lines) {
      if (line === "" && this.#data.length > 0) {
        events.push(this.#data.join("\n"));
        this.#data = [];
      } else if (line.startsWith("data:")) {
        this.#data.push(line.slice(line[5] === " " ? 6 : 5));
      }
    }
    return events;
  }
}
