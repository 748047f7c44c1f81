/** Says what is being done, with the seconds since the start: `[  3.2s] containerd answers`. */
export interface Progress {
  (text: string): void;
  /** Seconds since the start. */
  readonly elapsed: () => number;
}

/** Progress on standard error, so that standard output stays for results. */
export function startProgress(write: (line: string) => void = (line) => process.stderr.write(line)): Progress {
  const start = performance.now();
  const elapsed = (): number => (performance.now() - start) / 1000;
  const say = (text: string): void => write(`[${elapsed().toFixed(1).padStart(6)}s] ${text}\n`);
  return Object.assign(say, { elapsed });
}
