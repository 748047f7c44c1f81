import type { IncomingMessage } from 'node:http';
import { createServer, type Server } from 'node:https';
import { join } from 'node:path';
import { type Logger, messageOf } from '@somagent/kit/log.ts';
import { onFileChange, readTlsFiles } from '@somagent/kit/tls.ts';
import type { Witness } from './witness.ts';

/** Options of {@link serveWitness}. */
export interface WitnessServerOptions {
  /** 0 takes a free one. */
  readonly port: number;
  /** Directory with tls.crt and tls.key. */
  readonly tlsDirectory: string;
  readonly log: Logger;
}

/** A checkpoint with the longest proof has about 4 kB. */
const bodyLimit = 16 * 1024;

/**
 * Serves `POST /add-checkpoint` over HTTPS. Who asks proves it by the signature of the log below the checkpoint:
 * there is nothing else to ask for. Source: https://c2sp.org/tlog-witness
 */
export async function serveWitness(witness: Witness, options: WitnessServerOptions): Promise<Server> {
  const secure = () => {
    const { cert, key } = readTlsFiles(options.tlsDirectory);
    return { cert, key, minVersion: 'TLSv1.2' as const };
  };
  const server = createServer({ ...secure(), requestTimeout: 5000, headersTimeout: 5000 }, (request, response) => {
    const send = (status: number, body: string) =>
      response.writeHead(status, { 'content-type': contentType(status) }).end(body);
    answer(witness, request).then(
      ({ status, body }) => {
        if (status !== 200) options.log.warn({ status, reason: body.trim() }, 'no cosignature');
        send(status, body);
      },
      (error: unknown) => {
        options.log.error({ reason: messageOf(error) }, 'the witness failed');
        send(500, 'the witness failed: read its log\n');
      },
    );
  });
  const unwatch = onFileChange(join(options.tlsDirectory, 'tls.crt'), () => {
    try {
      server.setSecureContext(secure());
    } catch (error) {
      options.log.error({ reason: messageOf(error) }, 'the new certificate cannot be used: the old one stays');
    }
  });
  server.once('close', unwatch);
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject);
    server.listen(options.port, resolve);
  });
  return server;
}

const contentType = (status: number) => (status === 409 ? 'text/x.tlog.size' : 'text/plain; charset=utf-8');

async function answer(witness: Witness, request: IncomingMessage): Promise<{ status: number; body: string }> {
  if (request.url !== '/add-checkpoint') return { status: 404, body: 'only /add-checkpoint is here\n' };
  if (request.method !== 'POST') return { status: 405, body: 'send POST\n' };
  const parts: Buffer[] = [];
  let length = 0;
  for await (const part of request as AsyncIterable<Buffer>) {
    length += part.length;
    if (length > bodyLimit) return { status: 413, body: `a request has at most ${bodyLimit} bytes\n` };
    parts.push(part);
  }
  return witness.addCheckpoint(Buffer.concat(parts).toString('utf8'));
}
