import { fetchTrusting, messageOf, workloadToken } from '@somagent/kit';
import { z } from 'zod';
import type { Account } from './facts.ts';

/** Tenants, teams and accounts: where their truth is. */
export interface Directory {
  tenants(): Promise<readonly string[]>;
  teams(tenant: string): Promise<readonly string[]>;
  accounts(tenant: string): AsyncIterable<Account>;
  /** One account; undefined when it is not there. */
  account(tenant: string, userId: string): Promise<Account | undefined>;
}

/** Options of {@link IdentityDirectory}. */
export interface IdentityDirectoryOptions {
  /** Address of the identity service, without a path. */
  readonly url: string;
  readonly caFile: string;
  /** File with the workload token for the identity service. */
  readonly tokenFile: string;
}

const accountSchema = z.object({
  id: z.string(),
  kind: z.enum(['user', 'service-account']),
  username: z.string(),
  roles: z.array(z.string()),
  teams: z.array(z.string()),
  standing: z.enum(['active', 'suspended']),
});

const kinds = [
  { path: 'users', answer: z.object({ users: z.array(accountSchema) }).transform(({ users }) => users) },
  {
    path: 'service-accounts',
    answer: z.object({ serviceAccounts: z.array(accountSchema) }).transform(({ serviceAccounts }) => serviceAccounts),
  },
] as const;

const page = 200;

/** The identity service, which keeps Keycloak and its own database alike. */
export class IdentityDirectory implements Directory {
  readonly #options: IdentityDirectoryOptions;
  readonly #fetch: typeof fetch;

  constructor(options: IdentityDirectoryOptions) {
    this.#options = options;
    this.#fetch = fetchTrusting(options.caFile);
  }

  async tenants(): Promise<readonly string[]> {
    const { tenants } = z
      .object({ tenants: z.array(z.object({ tenant: z.string() })) })
      .parse(await this.#get('/v1/tenants'));
    return tenants.map(({ tenant }) => tenant);
  }

  async teams(tenant: string): Promise<readonly string[]> {
    return z.object({ teams: z.array(z.string()) }).parse(await this.#get(`/v1/tenants/${tenant}/teams`)).teams;
  }

  async *accounts(tenant: string): AsyncGenerator<Account> {
    for (const { path, answer } of kinds) {
      for (let after = ''; ; ) {
        const query = new URLSearchParams({ limit: String(page), ...(after && { after }) });
        const found = answer.parse(await this.#get(`/v1/tenants/${tenant}/${path}?${query}`));
        for (const account of found) yield accountOf(tenant, account);
        if (found.length < page) break;
        after = found.at(-1)?.username ?? '';
      }
    }
  }

  async account(tenant: string, userId: string): Promise<Account | undefined> {
    const person = await this.#find(`/v1/tenants/${tenant}/users/${encodeURIComponent(userId)}`);
    if (person !== undefined) return accountOf(tenant, accountSchema.parse(person));
    // Service accounts are few and have names, not ids, for their route.
    for await (const account of this.accounts(tenant)) if (account.userId === userId) return account;
    return undefined;
  }

  async #get(path: string): Promise<unknown> {
    const found = await this.#find(path);
    if (found === undefined) throw new Error(`the identity service has no ${path.split('?')[0]}`);
    return found;
  }

  /** @returns undefined when there is no such thing */
  async #find(path: string): Promise<unknown> {
    const { url, tokenFile } = this.#options;
    const response = await this.#fetch(`${url}${path}`, {
      headers: { authorization: `Bearer ${workloadToken(tokenFile)}`, accept: 'application/json' },
      signal: AbortSignal.timeout(10_000),
    }).catch((error: unknown) => {
      throw new Error(`the identity service does not answer: ${messageOf(error)}`, { cause: error });
    });
    if (response.status === 404) return undefined;
    if (!response.ok) throw new Error(`the identity service answers ${response.status} to ${path.split('?')[0]}`);
    return response.json();
  }
}

const accountOf = (tenant: string, account: z.output<typeof accountSchema>): Account => {
  const { id: userId, kind, username, roles, teams, standing } = account;
  return { tenant, userId, kind, username, roles, teams, suspended: standing === 'suspended' };
};
