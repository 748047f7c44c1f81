import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createAuthority, issueCertificate } from '@somagent/bootstrap/secrets/certificates.ts';
import { createLogger, fetchTrusting } from '@somagent/kit';
import type { Witness } from '../checkpoint/witness.ts';
import { serveWitness } from '../checkpoint/witness-server.ts';

/** A witness that listens on loopback, over TLS. */
export interface TestWitnessServer {
  readonly url: string;
  /** Trusts the authority of this server only. */
  readonly fetch: typeof fetch;
  stop(): Promise<void>;
}

/** Starts the server of a witness with a certificate of its own. */
export async function startWitnessServer(witness: Witness): Promise<TestWitnessServer> {
  const folder = mkdtempSync(join(tmpdir(), 'somagent-witness-tls-'));
  const authority = await createAuthority('test authority');
  const leaf = await issueCertificate(authority, {
    commonName: 'witness',
    dnsNames: ['localhost'],
    ipAddresses: ['127.0.0.1'],
    usages: ['server'],
  });
  const files = { 'tls.crt': leaf.certificate, 'tls.key': leaf.key, 'ca.crt': authority.certificate };
  for (const [name, text] of Object.entries(files)) writeFileSync(join(folder, name), text, { mode: 0o600 });
  const server = await serveWitness(witness, {
    port: 0,
    tlsDirectory: folder,
    log: createLogger({ service: 'witness-test', level: 'silent' }),
  });
  const address = server.address();
  if (address === null || typeof address === 'string') throw new Error('the witness does not listen on a port');
  const stop = async () => {
    server.closeAllConnections();
    await new Promise((done) => server.close(done));
    rmSync(folder, { recursive: true });
  };
  return { url: `https://127.0.0.1:${address.port}`, fetch: fetchTrusting(join(folder, 'ca.crt')), stop };
}
