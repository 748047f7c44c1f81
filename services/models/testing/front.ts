import { once } from 'node:events';
import { request as forward, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { KeyPair } from '@somagent/bootstrap/secrets/certificates.ts';

/** What happens to requests between their caller and the server. */
export type Fault =
  | { readonly kind: 'none' }
  /** Answered here, without the server. */
  | { readonly kind: 'status'; readonly status: number; readonly headers?: Readonly<Record<string, string>> }
  /** Taken and never answered. */
  | { readonly kind: 'hang' }
  /** The connection breaks after so many bytes of the answer's body. */
  | { readonly kind: 'reset'; readonly afterBytes: number }
  /** The answer stands still after so many bytes of its body. */
  | { readonly kind: 'stall'; readonly afterBytes: number }
  /** Goes to the server only after a while. */
  | { readonly kind: 'slow'; readonly ms: number }
  /** Nobody listens. */
  | { readonly kind: 'refuse' };

/** An HTTPS server in front of a real one: it passes everything on, and fails on its way as networks and servers do. */
export class Front {
  /** Without a path. */
  readonly url: string;
  /** Bodies of the requests that came, newest last. */
  readonly requests: { readonly path: string; readonly headers: IncomingMessage['headers']; body: string }[] = [];
  /** Requests that are neither answered nor given up. */
  open = 0;
  /** Requests whose callers went away before their end. */
  left = 0;
  /** Connections that were made. */
  connections = 0;
  readonly #socket: string;
  readonly #port: number;
  #server: Server;
  readonly #leaf: KeyPair;
  #fault: Fault = { kind: 'none' };

  private constructor(socket: string, leaf: KeyPair, server: Server, port: number) {
    this.#socket = socket;
    this.#leaf = leaf;
    this.#server = server;
    this.#port = port;
    this.url = `https://127.0.0.1:${port}`;
    this.#serve(server);
  }

  static async start(socket: string, leaf: KeyPair): Promise<Front> {
    const server = createServer({ cert: leaf.certificate, key: leaf.key });
    await listen(server, 0);
    return new Front(socket, leaf, server, (server.address() as AddressInfo).port);
  }

  /** From the next request on. */
  async fail(fault: Fault): Promise<void> {
    if (fault.kind === 'refuse') await this.stop();
    else if (!this.#server.listening) {
      this.#server = createServer({ cert: this.#leaf.certificate, key: this.#leaf.key });
      this.#serve(this.#server);
      await listen(this.#server, this.#port);
    }
    this.#fault = fault;
  }

  async stop(): Promise<void> {
    if (!this.#server.listening) return;
    const closed = once(this.#server, 'close');
    this.#server.close();
    this.#server.closeAllConnections();
    await closed;
  }

  #serve(server: Server): void {
    server.on('secureConnection', () => {
      this.connections += 1;
    });
    server.on('request', (request, response) => void this.#take(request, response));
  }

  async #take(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const fault = this.#fault;
    this.open += 1;
    response.once('close', () => {
      this.open -= 1;
      if (!response.writableFinished) this.left += 1;
    });
    const body = await read(request);
    this.requests.push({ path: request.url ?? '', headers: request.headers, body });
    if (fault.kind === 'hang') return;
    if (fault.kind === 'status') {
      response.writeHead(fault.status, { 'content-type': 'application/json', ...fault.headers });
      response.end(JSON.stringify({ error: { message: `status ${fault.status}` } }));
      return;
    }
    if (fault.kind === 'slow') await sleep(fault.ms);
    if (!response.destroyed) this.#pass(request, body, response, fault);
  }

  #pass(request: IncomingMessage, body: string, response: ServerResponse, fault: Fault): void {
    const { method, url, headers } = request;
    // Its server ends connections by its own rules.
    const upstream = forward({ socketPath: this.#socket, method, path: url, headers, agent: false }, (answer) => {
      response.writeHead(answer.statusCode ?? 502, answer.headers);
      let room = fault.kind === 'stall' || fault.kind === 'reset' ? fault.afterBytes : Number.POSITIVE_INFINITY;
      answer.on('data', (chunk: Buffer) => {
        if (room < 0) return;
        response.write(chunk.subarray(0, room));
        room -= chunk.length;
        // What is written shall arrive before the connection ends.
        if (room < 0 && fault.kind === 'reset') setTimeout(() => request.socket.destroy(), 10);
      });
      answer.on('end', () => {
        if (room >= 0) response.end();
      });
    });
    upstream.on('error', () => response.destroy());
    response.once('close', () => upstream.destroy());
    upstream.end(body);
  }
}

async function listen(server: Server, port: number): Promise<void> {
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
}

async function read(request: IncomingMessage): Promise<string> {
  const parts: Buffer[] = [];
  for await (const part of request) parts.push(part as Buffer);
  return Buffer.concat(parts).toString();
}
