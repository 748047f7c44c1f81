import { setTimeout as sleep } from 'node:timers/promises';
import { createParser, type EventSourceMessage } from 'eventsource-parser';
import { z } from 'zod';
import { httpsUrl, text } from './config.ts';
import { type Logger, reasonOf } from './log.ts';
import { fetchTrusting } from './tls.ts';
import { workloadToken, workloadTokenPath } from './workload.ts';

/** The variables of a client of the control feed. */
export const controlVariables = {
  IDENTITY_URL: httpsUrl('the address of the identity service, e.g. https://identity.local-services.svc:8443'),
  IDENTITY_CA_FILE: text('the PEM file of the authority that signed the certificate of the identity service'),
  IDENTITY_TOKEN_FILE: text('the file with the workload token for the identity service').default(
    workloadTokenPath('identity'),
  ),
};

/** Path of the control feed at the identity service. */
export const controlPath = '/v1/control/stream';

/** What is stopped, suspended, revoked and unlocked now: all of it, each time. */
export const controlSnapshotSchema = z.object({
  /** Grows with every change; never twice the same for different contents. */
  revision: z.int().nonnegative(),
  halted: z.object({ all: z.boolean(), tenants: z.array(z.string()) }),
  /** Users as `<tenant>/<subject>`. */
  suspended: z.object({ tenants: z.array(z.string()), users: z.array(z.string()) }),
  revoked: z.object({ sessions: z.array(z.string()), tokens: z.array(z.string()), keys: z.array(z.string()) }),
  /** Tenants whose training is unlocked; all others are locked. */
  training: z.object({ unlocked: z.array(z.string()) }),
});

/** A snapshot of the control state. */
export type ControlSnapshot = z.output<typeof controlSnapshotSchema>;

/** Identifiers of a request that may have been revoked. */
export interface Revocable {
  /** Session of a person, `sid` of the token. */
  readonly sid?: string | undefined;
  /** The token itself. */
  readonly jti?: string | undefined;
  /** An API key. */
  readonly keyId?: string | undefined;
}

/** Where the feed is and how the client is known there. */
export interface ControlStateOptions {
  /** Address of the identity service, without a path. */
  readonly url: string;
  readonly caFile: string;
  /** File with the workload token for the identity service. */
  readonly tokenFile: string;
  readonly log: Logger;
  /** Silence after which the feed counts as lost, milliseconds; the feed beats every 500 ms. @default 2000 */
  readonly silence?: number;
  /** Longest pause between two attempts, milliseconds. @default 1000 */
  readonly longestPause?: number;
}

/** Called after a change with the state before and after it. */
export type ControlListener = (now: ControlSnapshot, before: ControlSnapshot | undefined) => void;

const shortestPause = 50;
/** A snapshot of some 100,000 names. */
const longestMessage = 16 * 1024 * 1024;

/** A snapshot whose questions take constant time. */
export class ControlView {
  readonly snapshot: ControlSnapshot;
  readonly #haltedTenants: ReadonlySet<string>;
  readonly #tenants: ReadonlySet<string>;
  readonly #users: ReadonlySet<string>;
  readonly #sessions: ReadonlySet<string>;
  readonly #tokens: ReadonlySet<string>;
  readonly #keys: ReadonlySet<string>;
  readonly #unlocked: ReadonlySet<string>;

  constructor(snapshot: ControlSnapshot) {
    this.snapshot = snapshot;
    this.#haltedTenants = new Set(snapshot.halted.tenants);
    this.#tenants = new Set(snapshot.suspended.tenants);
    this.#users = new Set(snapshot.suspended.users);
    this.#sessions = new Set(snapshot.revoked.sessions);
    this.#tokens = new Set(snapshot.revoked.tokens);
    this.#keys = new Set(snapshot.revoked.keys);
    this.#unlocked = new Set(snapshot.training.unlocked);
  }

  /** Whether all work of the tenant is stopped by the kill switch. */
  halted(tenant: string): boolean {
    return this.snapshot.halted.all || this.#haltedTenants.has(tenant);
  }

  /** What of the caller is suspended: the tenant, the user, or nothing. */
  suspended(tenant: string, subject: string): 'tenant' | 'user' | null {
    if (this.#tenants.has(tenant)) return 'tenant';
    return this.#users.has(`${tenant}/${subject}`) ? 'user' : null;
  }

  /** Whether the session, the token or the key has been revoked. */
  revoked({ sid, jti, keyId }: Revocable): boolean {
    return (
      (sid !== undefined && this.#sessions.has(sid)) ||
      (jti !== undefined && this.#tokens.has(jti)) ||
      (keyId !== undefined && this.#keys.has(keyId))
    );
  }

  /** Whether sessions of the tenant may train or export. */
  training(tenant: string): 'locked' | 'unlocked' {
    return this.#unlocked.has(tenant) ? 'unlocked' : 'locked';
  }
}

/**
 * The control state as the identity service tells it, in this process: who asks gets an answer without a call. While
 * the identity service is away the last state stays in force: it can change nowhere else. Before the first snapshot
 * nothing is known: a question throws, and the service must not be ready.
 */
export class ControlState {
  readonly #options: ControlStateOptions;
  readonly #fetch: typeof fetch;
  readonly #listeners = new Set<ControlListener>();
  readonly #stopped = new AbortController();
  #view: ControlView | undefined;
  #heardAt: number | undefined;
  #following: Promise<void> | undefined;

  constructor(options: ControlStateOptions) {
    this.#options = options;
    this.#fetch = fetchTrusting(options.caFile);
  }

  /** Follows the feed until {@link stop}; returns at once. */
  start(): void {
    this.#following ??= this.#follow();
  }

  /** Ends following; the last state stays readable. */
  async stop(): Promise<void> {
    this.#stopped.abort();
    await this.#following;
  }

  /** Whether a snapshot has arrived. */
  get ready(): boolean {
    return this.#view !== undefined;
  }

  /** Milliseconds since the feed was last heard, a heartbeat included; infinite before its first word. */
  get ageMs(): number {
    return this.#heardAt === undefined ? Number.POSITIVE_INFINITY : performance.now() - this.#heardAt;
  }

  /** Revision of the state in force; 0 before the first snapshot. */
  get revision(): number {
    return this.#view?.snapshot.revision ?? 0;
  }

  /** As {@link ControlView.halted}. @throws Error before the first snapshot. */
  halted(tenant: string): boolean {
    return this.#known().halted(tenant);
  }

  /** As {@link ControlView.suspended}. @throws Error before the first snapshot. */
  suspended(tenant: string, subject: string): 'tenant' | 'user' | null {
    return this.#known().suspended(tenant, subject);
  }

  /** As {@link ControlView.revoked}. @throws Error before the first snapshot. */
  revoked(names: Revocable): boolean {
    return this.#known().revoked(names);
  }

  /** As {@link ControlView.training}. @throws Error before the first snapshot. */
  training(tenant: string): 'locked' | 'unlocked' {
    return this.#known().training(tenant);
  }

  /**
   * Calls the listener after every change, and at once when a state is known already.
   * @returns ends it
   */
  onChange(listener: ControlListener): () => void {
    this.#listeners.add(listener);
    if (this.#view !== undefined) this.#tell(listener, this.#view.snapshot, undefined);
    return () => this.#listeners.delete(listener);
  }

  /** For a readiness check. @throws Error that says what is missing. */
  async check(): Promise<void> {
    if (!this.ready) throw new Error(`no control state yet from ${this.#options.url}`);
  }

  #known(): ControlView {
    if (this.#view !== undefined) return this.#view;
    throw new Error(`no control state yet from ${this.#options.url}: the service must not take requests before`);
  }

  async #follow(): Promise<void> {
    let pause = shortestPause;
    while (!this.#stopped.signal.aborted) {
      const heardBefore = this.#heardAt;
      const reason = await this.#read().then(() => 'the feed ended', reasonOf);
      if (this.#stopped.signal.aborted) return;
      // One that was heard has been there: only silence makes the pauses longer.
      pause = this.#heardAt === heardBefore ? Math.min(pause * 2, this.#options.longestPause ?? 1000) : shortestPause;
      this.#options.log.warn({ url: this.#options.url, reason, known: this.ready }, 'the control feed was lost');
      await sleep(pause * (0.5 + Math.random() / 2), undefined, { signal: this.#stopped.signal }).catch(
        () => undefined,
      );
    }
  }

  /** Reads one connection to its end. */
  async #read(): Promise<void> {
    const { silence = 2000, url, tokenFile } = this.#options;
    const quiet = new AbortController();
    const cut = () => quiet.abort(new Error(`nothing was heard for ${silence} ms`));
    let timer = setTimeout(cut, silence);
    try {
      const response = await this.#fetch(`${url}${controlPath}`, {
        headers: { authorization: `Bearer ${workloadToken(tokenFile)}`, accept: 'text/event-stream' },
        signal: AbortSignal.any([quiet.signal, this.#stopped.signal]),
      });
      if (!response.ok || response.body === null) throw new Error(`the identity service answered ${response.status}`);
      await this.#parse(response.body, () => {
        clearTimeout(timer);
        timer = setTimeout(cut, silence);
      });
    } finally {
      clearTimeout(timer);
      quiet.abort();
    }
  }

  async #parse(body: ReadableStream<Uint8Array>, heard: () => void): Promise<void> {
    const onEvent = (event: EventSourceMessage) => {
      // A beat of a service without any state says nothing about the state.
      if (event.event === 'snapshot') this.#take(controlSnapshotSchema.parse(JSON.parse(event.data)));
      this.#heardAt = performance.now();
      heard();
    };
    const parser = createParser({ onEvent, maxBufferSize: longestMessage });
    const decoder = new TextDecoder();
    for await (const chunk of body) parser.feed(decoder.decode(chunk, { stream: true }));
  }

  /** A replica that lags may be slower than the one before: its older state is not taken. */
  #take(snapshot: ControlSnapshot): void {
    const before = this.#view?.snapshot;
    if (before !== undefined && snapshot.revision <= before.revision) return;
    this.#view = new ControlView(snapshot);
    this.#options.log.info({ revision: snapshot.revision }, 'the control state has changed');
    for (const listener of this.#listeners) this.#tell(listener, snapshot, before);
  }

  /** A listener that fails keeps no other from hearing. */
  #tell(listener: ControlListener, now: ControlSnapshot, before: ControlSnapshot | undefined): void {
    try {
      listener(now, before);
    } catch (error) {
      this.#options.log.error({ err: error, revision: now.revision }, 'a listener of the control state failed');
    }
  }
}
