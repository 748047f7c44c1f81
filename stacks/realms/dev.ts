import type { RealmPerson } from '@somagent/bootstrap/realm-types.ts';
import type { RealmEnvironment } from './environment.ts';

/** Everybody whom a test needs: whatever takes two people has two, and whatever a team may see has two teams. */
export const dev: RealmEnvironment = {
  accessTokenSeconds: 300,
  sessionIdleSeconds: 1800,
  sessionMaxSeconds: 36_000,
  bruteForce: { failures: 10, waitSeconds: 60, longestWaitSeconds: 900 },
  signingKeys: { days: 30, publishSeconds: 900 },
  consoleOrigin: 'https://localhost:8445',
  teams: ['blue', 'green'],
  personas: [{ persona: 'guide', team: 'green' }],
  people: (tenants) => [...tenants.flatMap(peopleOf), operator(1), operator(2)],
};

function peopleOf(tenant: string): RealmPerson[] {
  return [
    person(tenant, 'admin-1', ['tenant-admin'], []),
    person(tenant, 'admin-2', ['tenant-admin'], []),
    person(tenant, 'member-1', ['member'], ['blue']),
    person(tenant, 'member-2', ['member'], ['green']),
    person(tenant, 'auditor', ['auditor'], []),
  ];
}

function person(tenant: string, part: string, roles: string[], teams: string[]): RealmPerson {
  const username = `${tenant}-${part}`;
  return { username, firstName: part, lastName: tenant, email: `${username}@example.com`, tenant, roles, teams };
}

function operator(number: number): RealmPerson {
  const username = `operator-${number}`;
  return {
    username,
    firstName: 'Operator',
    lastName: String(number),
    email: `${username}@example.com`,
    roles: ['operator'],
  };
}
