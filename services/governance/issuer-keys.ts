import { fetchTrusting, type Logger, messageOf } from '@somagent/kit';
import { createRemoteJWKSet, customFetch, type RemoteJWKSet } from 'jose';

/** Options of {@link IssuerKeys}. */
export interface IssuerKeysOptions {
  readonly url: string;
  readonly caFile: string;
  readonly log: Logger;
  /** Time between refreshes of the keys, milliseconds. @default 300000 */
  readonly interval?: number;
}

/**
 * The public keys of the issuer. Fetched once before a service is ready and refreshed in the background, never on the
 * way of a request; while the issuer is away the last keys stay in use.
 */
export class IssuerKeys {
  readonly keys: RemoteJWKSet;
  readonly #options: IssuerKeysOptions;
  #timer: NodeJS.Timeout | undefined;

  constructor(options: IssuerKeysOptions) {
    this.#options = options;
    this.keys = createRemoteJWKSet(new URL(options.url), {
      cacheMaxAge: Number.POSITIVE_INFINITY,
      cooldownDuration: 10_000,
      timeoutDuration: 3000,
      [customFetch]: fetchTrusting(options.caFile),
    });
  }

  /** Whether keys have been fetched at least once. */
  get known(): boolean {
    return this.keys.jwks() !== undefined;
  }

  /** Fetches now, then regularly; sooner until the first success. */
  async start(): Promise<void> {
    const { log, url, interval = 300_000 } = this.#options;
    try {
      await this.keys.reload();
    } catch (error) {
      log.warn({ url, reason: messageOf(error), known: this.known }, 'the keys of the issuer cannot be fetched');
    }
    this.#timer = setTimeout(() => void this.start(), this.known ? interval : 1000);
    this.#timer.unref();
  }

  stop(): void {
    clearTimeout(this.#timer);
  }
}
