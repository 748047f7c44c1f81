import { readFileSync, unwatchFile, watchFile } from 'node:fs';
import { join } from 'node:path';
import { Agent, buildConnector, fetch as undiciFetch } from 'undici';

/** A certificate, its key and the authority to trust, as PEM. */
export interface TlsFiles {
  readonly cert: string;
  readonly key: string;
  readonly ca: string;
}

/** Reads `tls.crt`, `tls.key` and `ca.crt` of a mounted Secret. */
export function readTlsFiles(directory: string): TlsFiles {
  const read = (name: string) => readFileSync(join(directory, name), 'utf8');
  return { cert: read('tls.crt'), key: read('tls.key'), ca: read('ca.crt') };
}

/**
 * A `fetch` that trusts only the authority in `caFile`. The file is read for each new connection, so that a renewed
 * authority needs no restart.
 */
export function fetchTrusting(caFile: string): typeof fetch {
  const agent = new Agent({
    connect: (options, callback) => buildConnector({ ca: readFileSync(caFile, 'utf8') })(options, callback),
    headersTimeout: 120_000,
    bodyTimeout: 120_000,
  });
  // undici's own types of fetch differ from Node's copy of them only in name.
  const trusting = (input: unknown, init?: object) =>
    undiciFetch(input as Parameters<typeof undiciFetch>[0], { ...init, dispatcher: agent });
  return trusting as unknown as typeof fetch;
}

/**
 * Calls `changed` when a file of a mounted Secret changes. Polls every 5 s, because the kubelet swaps a symbolic link,
 * which notifications on the file itself do not report.
 * @returns ends the watch.
 */
export function onFileChange(file: string, changed: () => void): () => void {
  const listener = (now: { mtimeMs: number; ino: number }, before: { mtimeMs: number; ino: number }) => {
    if (now.mtimeMs !== before.mtimeMs || now.ino !== before.ino) changed();
  };
  watchFile(file, { interval: 5000, persistent: false }, listener);
  return () => unwatchFile(file, listener);
}
