import type { Realm, RealmPerson } from '@somagent/bootstrap/realm-types.ts';

/** A service account of its own for a persona of every tenant. */
export interface PersonaAccount {
  readonly persona: string;
  /** Team of the tenant whose agents it belongs to. */
  readonly team: string;
}

/** What differs between the realms of two environments; all else is the same everywhere (stacks/realm.ts). */
export interface RealmEnvironment
  extends Pick<
    Realm,
    'accessTokenSeconds' | 'sessionIdleSeconds' | 'sessionMaxSeconds' | 'bruteForce' | 'signingKeys'
  > {
  /** Origin of the console, where its users return after they have signed in. */
  readonly consoleOrigin: string;
  /** Teams that every tenant has from the beginning. The first one has the tenant's agent. */
  readonly teams: readonly [string, ...string[]];
  readonly personas: readonly PersonaAccount[];
  /** People who are there from the beginning; their first passwords are generated in the cluster. */
  readonly people: (tenants: readonly string[]) => readonly RealmPerson[];
}

/** Nobody is there from the beginning: people come through the identity service or a brokered directory. */
export const nobody = (): readonly RealmPerson[] => [];
