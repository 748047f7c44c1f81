import diagnostics from 'node:diagnostics_channel';
import type { IncomingMessage, Server, ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';

/** Milliseconds of one step of one request. */
export type Steps = Readonly<Record<string, number>>;

/** The steps of a request, each with the mark that ends it; they add up to its whole time. */
const steps = [
  ['routing, body of the HTTP request', 'tokens.recall'],
  ['token', 'quota.take'],
  ['limits, route, body, schema', 'policy.evaluate'],
  ['policy', 'policy.evaluate done'],
  ['verdict, recorded', 'verdicts.record done'],
  ['bounds of the request', 'spending.begin'],
  ['budget, reserved', 'spending.begin done'],
  ['request to the model, prepared', 'model asked'],
  ['the model and the way to it', 'model answered'],
  ['pieces after the model had ended', 'end'],
  ['budget, settled', 'end done'],
  ['rest of the answer', 'response'],
] as const;

/**
 * Marks when a request passes the parts of the gateway, and makes steps of the marks: one request at a time. What comes
 * before the HTTP request is read (TLS, the socket) is in no step.
 */
export class Stopwatch {
  #marks: Map<string, number> | undefined;
  #taken: Steps[] = [];

  /** Wraps a part, so that calls of its methods are marked. */
  readonly watch = <Part extends object>(name: string, part: Part): Part =>
    new Proxy(part, {
      get: (target, key) => {
        const value: unknown = Reflect.get(target, key, target);
        if (typeof value !== 'function') return value;
        return (...args: unknown[]) => this.#call(`${name}.${String(key)}`, () => value.apply(target, args));
      },
    });

  /** From now on requests to this port are measured, and what it asks of the model at this address. */
  follow(port: number, model: string): void {
    interface Served {
      readonly request: IncomingMessage;
      readonly response: ServerResponse;
      readonly server: Server;
    }
    const mine = ({ server, request }: Served) =>
      (server.address() as AddressInfo | null)?.port === port && request.url === '/v1/chat/completions';
    diagnostics.subscribe('http.server.request.start', (message) => {
      if (mine(message as Served)) this.#marks = new Map([['request', performance.now()]]);
    });
    diagnostics.subscribe('http.server.response.finish', (message) => {
      if (mine(message as Served)) this.#finish();
    });
    const asked = (mark: string) => (message: unknown) => {
      const { request } = message as { readonly request: { readonly origin: string } };
      if (String(request.origin) === model) this.#mark(mark);
    };
    diagnostics.subscribe('undici:client:sendHeaders', asked('model asked'));
    diagnostics.subscribe('undici:request:trailers', asked('model answered'));
  }

  /** The steps of the requests since the last call. */
  take(): readonly Steps[] {
    const taken = this.#taken;
    this.#taken = [];
    return taken;
  }

  #mark(name: string): void {
    // The first time counts.
    if (this.#marks?.has(name) === false) this.#marks.set(name, performance.now());
  }

  #call(name: string, run: () => unknown): unknown {
    this.#mark(name);
    const result = run();
    const done = (value: unknown) => {
      this.#mark(`${name} done`);
      return name === 'spending.begin' ? this.#watchEnd(value as { end(ending: unknown): Promise<void> }) : value;
    };
    return result instanceof Promise ? result.then(done) : done(result);
  }

  #watchEnd(spent: { end(ending: unknown): Promise<void> }) {
    return {
      ...spent,
      end: async (ending: unknown) => {
        this.#mark('end');
        await spent.end(ending);
        this.#mark('end done');
      },
    };
  }

  #finish(): void {
    this.#mark('response');
    const marks = this.#marks;
    this.#marks = undefined;
    let before = marks?.get('request') ?? 0;
    const taken = steps.map(([name, mark]): [string, number] => {
      const at = Math.max(before, marks?.get(mark) ?? before);
      const took = at - before;
      before = at;
      return [name, took];
    });
    this.#taken.push(Object.fromEntries(taken));
  }
}
