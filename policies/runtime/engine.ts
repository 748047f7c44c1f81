import { readFileSync } from 'node:fs';
import { type Logger, messageOf } from '@somagent/kit';
import { type Entrypoint, type Manifest, manifestOf, RefusedBundle, revisionOf, unpackBundle } from './bundle.ts';
import { BundleCache } from './cache.ts';
import { CompiledPolicy, type Verdict } from './compiled-policy.ts';
import { publicKeysOf, verifyBundle } from './signature.ts';
import type { BundleSource, Current } from './source.ts';

/** What runs is not what was published, and since when. */
export interface Drift {
  /** Revision that decides here, or null when none does. */
  readonly running: string | null;
  /** Revision that is published, or null when the store does not say. */
  readonly published: string | null;
  readonly reason: string;
  /** ISO time of the first look that saw it. */
  readonly since: string;
}

/** Options of {@link PolicyEngine}. */
export interface PolicyEngineOptions {
  readonly source: BundleSource;
  /** PEM file of the keys whose signature is trusted; read for each bundle. */
  readonly publicKeyFile: string;
  /** Folder for the last good bundle. @default none is kept across restarts */
  readonly cacheDir?: string;
  /** Milliseconds between two looks at the store. @default 1000 */
  readonly pollMs?: number;
  /** Called once when drift begins and once, with null, when it ends. */
  readonly onDrift?: (drift: Drift | null) => void;
  /** Called after each swap. */
  readonly onSwap?: (revision: string) => void;
  readonly log?: Logger;
}

interface Loaded {
  readonly policy: CompiledPolicy;
  readonly manifest: Manifest;
}

/**
 * Decides in process by the published bundle. A new bundle takes over between two questions; one that must not run is
 * refused and the last good one stays. Without any, every answer is no.
 */
export class PolicyEngine {
  readonly #options: PolicyEngineOptions;
  readonly #cache: BundleCache | undefined;
  #loaded: Loaded | undefined;
  #drift: Drift | null = null;
  #published: string | null = null;
  #timer: NodeJS.Timeout | undefined;
  #looking: Promise<void> = Promise.resolve();
  #stopped = false;

  constructor(options: PolicyEngineOptions) {
    this.#options = options;
    this.#cache = options.cacheDir === undefined ? undefined : new BundleCache(options.cacheDir);
  }

  /** True once a verified bundle decides. */
  get ready(): boolean {
    return this.#loaded !== undefined;
  }

  /** Content hash of the bundle that decides, or null without one. */
  get revision(): string | null {
    return this.#loaded?.manifest.revision ?? null;
  }

  /** What runs is not what is published; null while they are the same. */
  get drift(): Drift | null {
    return this.#drift;
  }

  /** Loads the cached and then the published bundle, and goes on looking. Resolves after the first look, come what may. */
  async start(): Promise<void> {
    await this.#restore();
    await this.refresh();
    this.#schedule();
  }

  /** Ends looking. The bundle goes on deciding. */
  async stop(): Promise<void> {
    this.#stopped = true;
    clearTimeout(this.#timer);
    await this.#looking;
  }

  /** Looks at the store now. Never throws: what is wrong becomes {@link drift}. */
  refresh(): Promise<void> {
    this.#looking = this.#looking.then(() => this.#look());
    return this.#looking;
  }

  /** The verdict, in some 10 µs. Never throws: what can't be decided is denied. */
  evaluate(entrypoint: Entrypoint, input: unknown): Verdict {
    if (this.#loaded === undefined) return denial('deny_without_bundle', 'no verified policy bundle is loaded');
    try {
      return this.#loaded.policy.evaluate(entrypoint, input);
    } catch (error) {
      return denial('deny_failed_evaluation', `the policy could not be evaluated: ${messageOf(error)}`);
    }
  }

  /**
   * A check for the readiness probe: rejects without a bundle, else resolves to {@link detail}. Drift is said there and
   * does not take the pod away: it decides by the last good bundle.
   */
  check = async (): Promise<string> => {
    if (this.#loaded !== undefined) return this.detail();
    throw new Error(`no policy bundle: ${this.#drift?.reason ?? 'none was looked for yet'}`);
  };

  /** State in one line, for the readiness answer. */
  detail(): string {
    const running = this.revision?.slice(0, 12) ?? 'none';
    return this.#drift === null ? `revision ${running}` : `revision ${running}, drift: ${this.#drift.reason}`;
  }

  #schedule(): void {
    if (this.#stopped) return;
    this.#timer = setTimeout(() => this.refresh().then(() => this.#schedule()), this.#options.pollMs ?? 1000);
    this.#timer.unref();
  }

  async #restore(): Promise<void> {
    try {
      const archive = await this.#cache?.read();
      if (archive !== undefined) this.#swap(await this.#verified(archive));
    } catch (error) {
      this.#options.log?.warn({ reason: messageOf(error) }, 'the cached policy bundle is not used');
    }
  }

  async #look(): Promise<void> {
    try {
      const current = await this.#options.source.changed();
      if (current !== undefined) {
        this.#published = current.revision;
        await this.#load(current);
      }
      this.#setDrift(undefined);
    } catch (error) {
      // Asked again at the next look: what was refused may have been replaced under the same name.
      this.#options.source.forget();
      this.#setDrift(messageOf(error));
    }
  }

  async #load(current: Current): Promise<void> {
    if (current.revision === this.revision) return;
    const archive = await this.#options.source.bundle(current.key);
    const loaded = await this.#verified(archive);
    if (loaded.manifest.revision !== current.revision) {
      throw new RefusedBundle(`${current.key} holds revision ${loaded.manifest.revision}, not ${current.revision}`);
    }
    this.#refuseRollback(loaded.manifest);
    await this.#keep(archive);
    this.#swap(loaded);
  }

  async #verified(archive: Buffer): Promise<Loaded> {
    const files = await unpackBundle(archive);
    verifyBundle(files, publicKeysOf(readFileSync(this.#options.publicKeyFile, 'utf8')));
    const manifest = manifestOf(files);
    if (manifest.revision !== revisionOf(files)) {
      throw new RefusedBundle('the revision in the manifest is not the hash of the content');
    }
    return { manifest, policy: await CompiledPolicy.of(files) };
  }

  #refuseRollback({ metadata: { sequence } }: Manifest): void {
    const known = this.#loaded?.manifest.metadata.sequence ?? 0;
    if (sequence > known) return;
    throw new RefusedBundle(
      `the bundle is number ${sequence} and number ${known} ran already: publish an older policy anew, under a new number`,
    );
  }

  /** A full disk must not stop a good policy. */
  async #keep(archive: Buffer): Promise<void> {
    try {
      await this.#cache?.write(archive);
    } catch (error) {
      this.#options.log?.error({ reason: messageOf(error) }, 'the policy bundle could not be kept on disk');
    }
  }

  #swap(loaded: Loaded): void {
    this.#loaded = loaded;
    this.#options.log?.info({ revision: loaded.manifest.revision }, 'policy bundle in force');
    this.#options.onSwap?.(loaded.manifest.revision);
  }

  #setDrift(reason: string | undefined): void {
    const before = this.#drift;
    if (reason === undefined) this.#drift = null;
    else {
      const since = before?.since ?? new Date().toISOString();
      this.#drift = { running: this.revision, published: this.#published, reason, since };
    }
    if ((before === null) === (this.#drift === null)) return;
    if (this.#drift !== null) this.#options.log?.error({ ...this.#drift }, 'policy drift');
    this.#options.onDrift?.(this.#drift);
  }
}

function denial(id: string, reason: string): Verdict {
  return { allow: false, rule: `soma.engine.${id}`, reasons: [reason], obligations: {} };
}
