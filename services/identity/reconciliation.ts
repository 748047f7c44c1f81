import type { Logger } from '@somagent/kit';
import { messageOf } from '@somagent/kit';
import type { Accounts } from './accounts.ts';
import { differencesOf, type Keycloak, type StoredAccount, type WishedAccount } from './keycloak.ts';
import { type Ledger, ownWork } from './ledger.ts';
import type { Tenants } from './tenants.ts';

/** One difference between Keycloak and the database. */
export interface Difference {
  readonly tenant: string;
  /** What differs: a tenant, a team or an account. */
  readonly kind: 'tenant' | 'team' | 'user' | 'service-account';
  readonly name: string;
  /** Where it is missing, or which fields differ; then the database is right. */
  readonly difference: 'missing here' | 'missing in Keycloak' | `differs: ${string}`;
}

/** What a reconciliation has found, and how much of it is repaired now. */
export interface ReconciliationReport {
  readonly differences: readonly Difference[];
  readonly repaired: number;
  /** Differences that could not be repaired, with the reason. */
  readonly failed: readonly string[];
}

/** What the reconciliation works with. */
export interface ReconciliationParts {
  readonly ledger: Ledger;
  readonly tenants: Tenants;
  readonly accounts: Accounts;
  readonly keycloak: Keycloak;
  readonly log: Logger;
}

interface Found {
  readonly difference: Difference;
  readonly repair: () => Promise<unknown>;
}

const origin = ownWork('reconciliation');

/**
 * Compares Keycloak with the database and repairs. What the realm's code has put into Keycloak is taken into the
 * database (a tenant, a team, an account); an account that is gone from Keycloak can't sign in and is removed here; for
 * everything else the database is right and Keycloak is brought to it.
 */
export class Reconciliation {
  readonly #parts: ReconciliationParts;

  constructor(parts: ReconciliationParts) {
    this.#parts = parts;
  }

  /** Compares, changes nothing. */
  async report(): Promise<ReconciliationReport> {
    const found = [...(await this.#groups()), ...(await this.#people())];
    return { differences: found.map(({ difference }) => difference), repaired: 0, failed: [] };
  }

  /** Compares and repairs; safe to repeat and to interrupt. */
  async repair(): Promise<ReconciliationReport> {
    // Accounts stand on tenants and teams, so they are compared after those are repaired.
    const groups = await this.#mend(await this.#groups());
    const people = await this.#mend(await this.#people());
    const report = {
      differences: [...groups.differences, ...people.differences],
      repaired: groups.repaired + people.repaired,
      failed: [...groups.failed, ...people.failed],
    };
    if (report.differences.length > 0) this.#parts.log.warn(report, 'Keycloak and the database differed');
    return report;
  }

  async #mend(found: readonly Found[]): Promise<ReconciliationReport> {
    const failed: string[] = [];
    for (const { difference, repair } of found) {
      const { tenant, kind, name } = difference;
      await repair().catch((error: unknown) => failed.push(`${kind} ${tenant}/${name}: ${messageOf(error)}`));
    }
    const differences = found.map(({ difference }) => difference);
    return { differences, repaired: found.length - failed.length, failed };
  }

  async #groups(): Promise<Found[]> {
    const { tenants, accounts, keycloak } = this.#parts;
    const theirs = await keycloak.tenants();
    const ours = new Map<string, readonly string[]>();
    for (const { tenant } of await tenants.list()) ours.set(tenant, await accounts.teams(tenant));
    const names = [...new Set([...theirs.keys(), ...ours.keys()])].sort();
    return names.flatMap((tenant) => [
      ...this.#tenant(tenant, ours.has(tenant), theirs.has(tenant)),
      ...this.#teams(tenant, ours.get(tenant) ?? [], theirs.get(tenant) ?? []),
    ]);
  }

  #tenant(tenant: string, here: boolean, there: boolean): Found[] {
    const { tenants, keycloak } = this.#parts;
    const of = { tenant, kind: 'tenant', name: tenant } as const;
    if (!here) {
      const repair = () => tenants.put(origin, tenant, tenant);
      return [{ difference: { ...of, difference: 'missing here' }, repair }];
    }
    if (there) return [];
    return [
      { difference: { ...of, difference: 'missing in Keycloak' }, repair: () => keycloak.ensureGroups(tenant, []) },
    ];
  }

  #teams(tenant: string, ours: readonly string[], theirs: readonly string[]): Found[] {
    const { accounts, keycloak } = this.#parts;
    const of = (name: string) => ({ tenant, kind: 'team', name }) as const;
    const here = theirs.filter((name) => !ours.includes(name));
    const there = ours.filter((name) => !theirs.includes(name));
    return [
      ...here.map(
        (name): Found => ({
          difference: { ...of(name), difference: 'missing here' },
          repair: () => accounts.putTeam(origin, tenant, name),
        }),
      ),
      ...there.map(
        (name): Found => ({
          difference: { ...of(name), difference: 'missing in Keycloak' },
          repair: () => keycloak.ensureGroups(tenant, [name]),
        }),
      ),
    ];
  }

  async #people(): Promise<Found[]> {
    const { accounts, keycloak } = this.#parts;
    // The database first: an account that is created in between is then in both.
    const ours = new Map((await accounts.wishes()).map((wish) => [wish.id, wish]));
    const theirs = new Map((await keycloak.accounts()).map((stored) => [stored.id, stored]));
    const found: Found[] = [];
    for (const stored of theirs.values()) {
      if (!ours.has(stored.id)) found.push(this.#adopt(stored));
    }
    for (const wish of ours.values()) {
      const stored = theirs.get(wish.id);
      const differs = stored === undefined ? ['groups'] : differencesOf(wish, stored);
      if (differs.length > 0) found.push(await this.#bring(wish, differs));
    }
    return found;
  }

  #adopt(stored: StoredAccount): Found {
    const { tenant, kind, username: name } = stored;
    return {
      difference: { tenant, kind, name, difference: 'missing here' },
      repair: async () => {
        // It may have been removed, and forgotten here, since it was listed.
        await this.#parts.accounts.put(origin, tenant, stored);
        if (!stored.enabled)
          await this.#parts.accounts.suspend(origin, tenant, stored.id, 'it is disabled in Keycloak');
      },
    };
  }

  async #bring(wish: WishedAccount, differs: readonly string[]): Promise<Found> {
    const { accounts, keycloak, ledger } = this.#parts;
    const { tenant, kind, username: name, id, roles, teams } = wish;
    const gone = !(await keycloak.exists(id));
    const difference = gone ? ('missing in Keycloak' as const) : (`differs: ${differs.join(', ')}` as const);
    const repair = async () => {
      if (gone) await accounts.remove(origin, tenant, kind, id);
      if (gone) return;
      await keycloak.ensureGroups(tenant, teams);
      // It may have changed since it was compared.
      const applied = (await accounts.settle(id, (now) => keycloak.apply(now))) ?? [];
      const changed = applied.map((field) => `keycloak:${field}`);
      if (changed.length === 0) return;
      const data = { userId: id, username: name, changed, roles: [...roles], teams: [...teams] };
      await ledger.change(tenant, origin, async (change) => change.record('audit.identity', 'user.updated', data));
    };
    return { difference: { tenant, kind, name, difference }, repair };
  }
}
