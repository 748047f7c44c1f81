import type { ProblemKind } from '@somagent/governance';

/** Types of problems that only this service answers with. */
export const problems = {
  tenantUnknown: { type: 'tenant-unknown', status: 404, title: 'There is no such tenant' },
  nameTaken: { type: 'name-taken', status: 409, title: 'The name belongs to somebody else' },
  teamUnknown: { type: 'team-unknown', status: 422, title: 'The tenant has no such team' },
  roleUnknown: { type: 'role-unknown', status: 422, title: 'There is no such role' },
  scopeUnknown: { type: 'scope-unknown', status: 422, title: 'There is no such capability' },
  teamInUse: { type: 'team-in-use', status: 409, title: 'The team has members' },
  keyExists: { type: 'key-exists', status: 409, title: 'The idempotency key was used before' },
  proposalOpen: { type: 'proposal-open', status: 409, title: 'Another proposal is open' },
  proposalClosed: { type: 'proposal-closed', status: 409, title: 'The proposal is decided or has run out' },
  secondPerson: { type: 'second-person', status: 403, title: 'Another person has to approve' },
  notPerson: { type: 'not-a-person', status: 403, title: 'Only people decide this' },
  platformOnly: { type: 'platform-only', status: 403, title: 'Only operators of the platform may do this' },
  keycloakAway: { type: 'keycloak-away', status: 503, title: 'Keycloak does not answer' },
  feedStale: { type: 'feed-stale', status: 503, title: 'The control state is not known here at the moment' },
} as const satisfies Readonly<Record<string, ProblemKind>>;
