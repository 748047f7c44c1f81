import { hash } from 'node:crypto';
import { fetchTrusting, type Logger, messageOf, workloadToken } from '@somagent/kit';
import { z } from 'zod';
import type { ApiKeyVerifier } from './authentication.ts';
import type { Caller } from './caller.ts';
import { Problem } from './problem.ts';

/** Options of {@link IdentityApiKeys}. */
export interface IdentityApiKeysOptions {
  /** Address of the identity service. */
  readonly url: string;
  readonly caFile: string;
  /** File with the workload token for the identity service. */
  readonly tokenFile: string;
  readonly log: Logger;
  /** Time for which an answer is used, milliseconds; a revocation is seen at once through the control feed. @default 30000 */
  readonly memory?: number;
  /** Answers remembered; the oldest is forgotten first. @default 10000 */
  readonly capacity?: number;
}

const answer = z.object({
  holder: z
    .object({
      keyId: z.string(),
      tenant: z.string(),
      subject: z.string(),
      roles: z.array(z.string()),
      teams: z.array(z.string()),
      scopes: z.array(z.string()),
      expiresAt: z.iso.datetime(),
    })
    .nullable(),
});
type Holder = NonNullable<z.output<typeof answer>['holder']>;

interface Remembered {
  readonly caller: Caller | null;
  /** Milliseconds since the epoch. */
  readonly until: number;
}

/** Asks the identity service whom an API key stands for, and remembers the answer by the hash of the key. */
export class IdentityApiKeys implements ApiKeyVerifier {
  readonly #options: Required<IdentityApiKeysOptions>;
  readonly #fetch: typeof fetch;
  readonly #known = new Map<string, Remembered>();

  constructor(options: IdentityApiKeysOptions) {
    this.#options = { memory: 30_000, capacity: 10_000, ...options };
    this.#fetch = fetchTrusting(options.caFile);
  }

  /** @throws Problem identity-unavailable. */
  async verify(key: string): Promise<Caller | null> {
    const digest = hash('sha256', key, 'base64');
    const known = this.#known.get(digest);
    if (known !== undefined && Date.now() < known.until) return known.caller;
    const holder = await this.#ask(key);
    const expiry = holder === null ? Number.POSITIVE_INFINITY : Date.parse(holder.expiresAt);
    const caller = holder === null ? null : callerOf(holder);
    this.#known.delete(digest);
    this.#known.set(digest, { caller, until: Math.min(expiry, Date.now() + this.#options.memory) });
    const [oldest] = this.#known.keys();
    if (this.#known.size > this.#options.capacity && oldest !== undefined) this.#known.delete(oldest);
    return caller;
  }

  async #ask(key: string): Promise<Holder | null> {
    const { url, tokenFile, log } = this.#options;
    try {
      const response = await this.#fetch(`${url}/v1/api-keys/verify`, {
        method: 'POST',
        headers: { authorization: `Bearer ${workloadToken(tokenFile)}`, 'content-type': 'application/json' },
        body: JSON.stringify({ key }),
        signal: AbortSignal.timeout(3000),
      });
      if (!response.ok) throw new Error(`it answered ${response.status}`);
      return answer.parse(await response.json()).holder;
    } catch (error) {
      log.warn({ url, reason: messageOf(error) }, 'the identity service does not verify API keys');
      throw new Problem('identity-unavailable', 'API keys cannot be verified at the moment: try again', {
        'retry-after': '2',
      });
    }
  }
}

const callerOf = ({ keyId, tenant, subject, roles, teams, scopes }: Holder): Caller => ({
  kind: 'api-key',
  tenant,
  subject,
  client: keyId,
  roles,
  teams,
  scopes,
  revocable: { keyId },
});
