import { randomBytes } from 'node:crypto';
import { Problem } from '@somagent/governance';
import { type Logger, reasonOf } from '@somagent/kit';
import type { Accounts, AccountView } from './accounts.ts';
import type { AccountKind } from './database.ts';
import type { Keycloak } from './keycloak.ts';
import type { Origin } from './ledger.ts';
import { problems } from './problems.ts';

/** What an administrator says about an account. */
export interface AccountRequest {
  readonly username: string;
  readonly email: string | null;
  readonly roles: readonly string[];
  readonly teams: readonly string[];
}

/** An account, and the credential it begins with; null when it had one before. */
export interface PutResult {
  readonly account: AccountView;
  readonly credential: string | null;
}

/**
 * Accounts in both places. Keycloak first creates something that nobody can sign in with, then the database stores the
 * account with its events, then Keycloak is brought to it: whatever is interrupted in between is harmless, and is
 * finished by a repetition or by the reconciliation.
 */
export class Directory {
  readonly #accounts: Accounts;
  readonly #keycloak: Keycloak;
  readonly #log: Logger;
  /** Ends when Keycloak has been brought to all that was asked for so far. */
  #followed: Promise<void> = Promise.resolve();

  constructor(accounts: Accounts, keycloak: Keycloak, log: Logger) {
    this.#accounts = accounts;
    this.#keycloak = keycloak;
    this.#log = log;
  }

  /** Creates a person, or changes one. @throws Problem name-taken and those of {@link Accounts.put}. */
  async putUser(origin: Origin, tenant: string, request: AccountRequest): Promise<PutResult> {
    await this.#accounts.check(tenant, request);
    const known = await this.#accounts.find(tenant, 'user', request.username);
    const id = known?.id ?? (await this.#newUser(request));
    const credential = known === undefined ? randomBytes(18).toString('base64url') : null;
    if (credential !== null) await this.#keycloak.setTemporaryPassword(id, credential);
    return { account: await this.#store(origin, tenant, { ...request, id, kind: 'user' }), credential };
  }

  /** Creates a service account, or changes one. Its name begins with that of the tenant. @throws Problem name-taken. */
  async putServiceAccount(origin: Origin, tenant: string, request: AccountRequest): Promise<PutResult> {
    const { username: clientId } = request;
    if (!clientId.startsWith(`${tenant}-`)) {
      throw new Problem('invalid-request', `the name is ${clientId}: begin it with ${tenant}-, so that it is yours`);
    }
    await this.#accounts.check(tenant, request);
    const known = await this.#accounts.find(tenant, 'service-account', clientId);
    const id = known?.id ?? (await this.#newServiceAccount(tenant, clientId));
    const account = await this.#store(origin, tenant, { ...request, id, kind: 'service-account' });
    return { account, credential: known === undefined ? await this.#keycloak.newClientSecret(clientId) : null };
  }

  /** Removes an account from both. The database last: what fails is finished by a repetition. */
  async remove(origin: Origin, tenant: string, kind: AccountKind, id: string): Promise<void> {
    const account = await this.#accounts.get(tenant, kind, id).catch((error: unknown) => {
      if (error instanceof Problem && error.type === 'not-found') return undefined;
      throw error;
    });
    if (account === undefined) return;
    await this.#keycloak.remove(account);
    await this.#accounts.remove(origin, tenant, kind, id);
  }

  /** Adds a team in both. */
  async putTeam(origin: Origin, tenant: string, name: string): Promise<void> {
    await this.#accounts.putTeam(origin, tenant, name);
    await this.#keycloak.ensureGroups(tenant, [name]);
  }

  /** Removes a team from both. */
  async removeTeam(origin: Origin, tenant: string, name: string): Promise<void> {
    await this.#accounts.removeTeam(origin, tenant, name);
    await this.#keycloak.removeTeam(tenant, name);
  }

  /**
   * Brings Keycloak to the standing of accounts, in the background: the control feed has it already, and what fails
   * here is repaired by the reconciliation.
   */
  follow(filter: { readonly tenant?: string; readonly id?: string }): void {
    void this.#inTurn(filter).catch((error: unknown) =>
      this.#log.warn({ ...filter, reason: reasonOf(error) }, 'Keycloak does not know of the suspension yet'),
    );
  }

  /** One after the other: a tenant with many accounts must not take all connections. */
  #inTurn(filter: { readonly tenant?: string; readonly id?: string }): Promise<void> {
    const mine = this.#followed.then(() => this.#follow(filter));
    this.#followed = mine.catch(() => undefined);
    return mine;
  }

  async #follow(filter: { readonly tenant?: string; readonly id?: string }): Promise<void> {
    for (const { id } of await this.#accounts.wishes(filter)) {
      await this.#accounts.settle(id, (wish) => this.#keycloak.apply(wish));
    }
  }

  async #store(
    origin: Origin,
    tenant: string,
    wish: AccountRequest & { readonly id: string; readonly kind: AccountKind },
  ): Promise<AccountView> {
    const account = await this.#accounts.put(origin, tenant, wish);
    await this.#keycloak.ensureGroups(tenant, wish.teams);
    await this.#inTurn({ id: account.id });
    return account;
  }

  async #newUser({ username, email }: AccountRequest): Promise<string> {
    return (await this.#leftover('user', username)) ?? this.#keycloak.createUser({ username, email });
  }

  async #newServiceAccount(tenant: string, clientId: string): Promise<string> {
    await this.#leftover('service-account', clientId);
    return this.#keycloak.createServiceAccount(clientId, `Service account of tenant ${tenant}`);
  }

  /** What an interrupted creation left. An account that is somebody's is never taken over, whoever asks. */
  async #leftover(kind: AccountKind, username: string): Promise<string | undefined> {
    const found = await this.#keycloak.find(kind, username);
    if (found === undefined) return undefined;
    const owner = await this.#accounts.tenantOf(found.id);
    if (found.inert && owner === undefined) return found.id;
    throw new Problem(problems.nameTaken, `the name ${username} is taken: choose another`);
  }
}
