import { startHealthServer } from '@somagent/kit/health.ts';
import type { Logger } from '@somagent/kit/log.ts';
import { onShutdown } from '@somagent/kit/shutdown.ts';
import { readSigner, readVerifier } from './checkpoint/keys.ts';
import { verifierKey } from './checkpoint/note.ts';
import { Witness } from './checkpoint/witness.ts';
import { serveWitness } from './checkpoint/witness-server.ts';
import { WitnessState } from './checkpoint/witness-state.ts';
import type { WitnessConfig } from './witness-config.ts';

/** Serves the witness until the process is asked to end. */
export async function runWitness(config: WitnessConfig, log: Logger): Promise<void> {
  const signer = readSigner(config.WITNESS_NAME, 'witness', config.WITNESS_KEY_FILE);
  const verifier = readVerifier(config.LOG_ORIGIN, 'log', config.LOG_PUBLIC_KEY_FILE);
  const state = new WitnessState(config.STATE_DIR);
  const witness = new Witness({ origin: config.LOG_ORIGIN, verifier }, signer, state);
  const health = await startHealthServer({
    port: config.HEALTH_PORT,
    // A head that can't be read is not forgotten: it has to be mended by a person.
    checks: { state: async () => void (await state.read()) },
  });
  const server = await serveWitness(witness, { port: config.PORT, tlsDirectory: config.TLS_DIR, log });
  log.info({ port: config.PORT, log: verifierKey(verifier), witness: verifierKey(signer) }, 'witness is listening');
  onShutdown(log, 9000, [
    { name: 'stop being ready', run: () => health.drain() },
    { name: 'close the server', run: () => new Promise((done) => server.close(done).closeIdleConnections()) },
    { name: 'close health', run: () => health.close() },
  ]);
}
