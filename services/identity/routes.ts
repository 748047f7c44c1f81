import { z } from '@hono/zod-openapi';
import { body, commonResponses, declareRoute, failed, json, openApiRoute } from '@somagent/governance';
import { controlPath, tenantPattern } from '@somagent/kit';
import { longestLife } from './api-keys.ts';
import { proposalSeconds } from './training.ts';

const standing = z.enum(['active', 'suspended']);
const name = z.string().regex(/^[a-z0-9][a-z0-9-]{0,62}$/, 'use a-z, 0-9 and -, at most 63 characters');
const tenantName = z.string().regex(tenantPattern, 'use a-z, 0-9 and -, at most 63 characters');
const username = z.string().regex(/^[a-z0-9][a-z0-9._@-]{0,99}$/, 'use a-z, 0-9 and . _ @ -, at most 100 characters');
const capability = z.string().regex(/^[a-z][a-z-]*:[a-z][a-z-]*$/, 'write <noun>:<verb>, e.g. session:read');
const reason = z.string().trim().min(1).max(500);

const tenant = z
  .object({
    tenant: z.string(),
    displayName: z.string(),
    standing,
    halted: z.boolean(),
    training: z.enum(['locked', 'unlocked']),
    createdAt: z.iso.datetime(),
  })
  .openapi('Tenant');

const account = z
  .object({
    id: z.string(),
    kind: z.enum(['user', 'service-account']),
    username: z.string(),
    email: z.string().nullable(),
    roles: z.array(z.string()),
    teams: z.array(z.string()),
    standing,
    createdAt: z.iso.datetime(),
  })
  .openapi('Account');

const putAccount = z
  .object({
    account,
    credential: z.string().nullable().openapi({
      description: 'Temporary password or client secret, shown this once; null when the account was there before',
    }),
  })
  .openapi('AccountWithCredential');

const apiKey = z
  .object({
    id: z.string(),
    owner: z.string(),
    name: z.string(),
    scopes: z.array(z.string()),
    createdAt: z.iso.datetime(),
    expiresAt: z.iso.datetime(),
    revokedAt: z.iso.datetime().nullable(),
  })
  .openapi('ApiKey');

const proposal = z
  .object({ id: z.uuid(), proposedBy: z.string(), reason: z.string(), expiresAt: z.iso.datetime() })
  .openapi('TrainingProposal');

const training = z
  .object({ training: z.enum(['locked', 'unlocked']), proposal: proposal.nullable() })
  .openapi('Training');

const halt = z.object({ changed: z.boolean() }).openapi('Halt');

const control = z
  .object({
    revision: z.int(),
    halted: z.object({ all: z.boolean(), tenants: z.array(z.string()) }),
    suspended: z.object({ tenants: z.array(z.string()), users: z.array(z.string()) }),
    training: z.object({ unlocked: z.array(z.string()) }),
  })
  .openapi('Control');

const report = z
  .object({
    differences: z.array(z.object({ tenant: z.string(), kind: z.string(), name: z.string(), difference: z.string() })),
    repaired: z.int(),
    failed: z.array(z.string()),
  })
  .openapi('Reconciliation');

const ofTenant = z.object({ tenant: tenantName });
const withId = z.object({ tenant: tenantName, id: z.string().min(1).max(100) });
const because = body(z.object({ reason }).strict());
const responses = { ...commonResponses, 404: failed('There is no such thing in this tenant') };
const account404 = { ...responses, 409: failed('The name is taken'), 422: failed('No such role or team') };

const userBody = z
  .object({
    email: z.email().max(254).nullable().default(null),
    roles: z.array(z.string()).max(20).default(['member']),
    teams: z.array(name).max(50).default([]),
  })
  .strict();

const serviceBody = z
  .object({ roles: z.array(z.string()).max(20).default(['agent']), teams: z.array(name).max(50).default([]) })
  .strict();

const page = z.object({
  limit: z.coerce.number().int().min(1).max(200).default(50),
  after: z.string().max(100).optional().openapi({ description: 'Name after which the page begins' }),
});

const tenants = {
  listTenants: declareRoute({
    method: 'get',
    path: '/v1/tenants',
    operationId: 'listTenants',
    summary: 'All tenants for operators; for others their own',
    capability: 'tenant:read',
    audit: 'none',
    responses: { 200: json(z.object({ tenants: z.array(tenant) }), 'The tenants, by name'), ...responses },
  }),
  getTenant: declareRoute({
    method: 'get',
    path: '/v1/tenants/{tenant}',
    operationId: 'getTenant',
    summary: 'A tenant',
    capability: 'tenant:read',
    audit: 'none',
    request: { params: ofTenant },
    responses: { 200: json(tenant, 'The tenant'), ...responses },
  }),
  putTenant: declareRoute({
    method: 'put',
    path: '/v1/tenants/{tenant}',
    operationId: 'putTenant',
    summary: 'Create a tenant or change its displayed name',
    capability: 'tenant:write',
    audit: 'admin',
    request: { params: ofTenant, ...body(z.object({ displayName: z.string().trim().min(1).max(200) }).strict()) },
    responses: { 200: json(tenant, 'The tenant'), ...responses },
  }),
  suspendTenant: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/suspend',
    operationId: 'suspendTenant',
    summary: 'Suspend a tenant: no credential of it is accepted any more, everywhere within a second',
    capability: 'tenant:suspend',
    audit: 'admin',
    request: { params: ofTenant, ...because },
    responses: { 200: json(tenant, 'The suspended tenant'), ...responses },
  }),
  restoreTenant: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/restore',
    operationId: 'restoreTenant',
    summary: 'Undo the suspension of a tenant',
    capability: 'tenant:suspend',
    audit: 'admin',
    request: { params: ofTenant, ...because },
    responses: { 200: json(tenant, 'The tenant'), ...responses },
  }),
  listTeams: declareRoute({
    method: 'get',
    path: '/v1/tenants/{tenant}/teams',
    operationId: 'listTeams',
    summary: 'Teams of a tenant',
    capability: 'tenant:read',
    audit: 'none',
    request: { params: ofTenant },
    responses: { 200: json(z.object({ teams: z.array(z.string()) }), 'Their names'), ...responses },
  }),
  putTeam: declareRoute({
    method: 'put',
    path: '/v1/tenants/{tenant}/teams/{id}',
    operationId: 'putTeam',
    summary: 'Add a team',
    capability: 'user:write',
    audit: 'admin',
    request: { params: ofTenant.extend({ id: name }) },
    responses: { 204: { description: 'The team is there' }, ...responses },
  }),
  deleteTeam: declareRoute({
    method: 'delete',
    path: '/v1/tenants/{tenant}/teams/{id}',
    operationId: 'deleteTeam',
    summary: 'Remove a team that nobody is in',
    capability: 'user:write',
    audit: 'admin',
    request: { params: ofTenant.extend({ id: name }) },
    responses: { 204: { description: 'The team is gone' }, 409: failed('Somebody is in it'), ...responses },
  }),
};

const users = {
  listUsers: declareRoute({
    method: 'get',
    path: '/v1/tenants/{tenant}/users',
    operationId: 'listUsers',
    summary: 'People of a tenant, by name',
    capability: 'user:read',
    audit: 'read',
    request: { params: ofTenant, query: page },
    responses: { 200: json(z.object({ users: z.array(account) }), 'A page'), ...responses },
  }),
  getUser: declareRoute({
    method: 'get',
    path: '/v1/tenants/{tenant}/users/{id}',
    operationId: 'getUser',
    summary: 'A person',
    capability: 'user:read',
    audit: 'read',
    request: { params: withId },
    responses: { 200: json(account, 'The person'), ...responses },
  }),
  putUser: declareRoute({
    method: 'put',
    path: '/v1/tenants/{tenant}/users/by-name/{username}',
    operationId: 'putUser',
    summary: 'Create a person, or change roles, teams and address; the same request again changes nothing',
    capability: 'user:write',
    audit: 'admin',
    request: { params: ofTenant.extend({ username }), ...body(userBody) },
    responses: { 200: json(putAccount, 'The person'), ...account404 },
  }),
  deleteUser: declareRoute({
    method: 'delete',
    path: '/v1/tenants/{tenant}/users/{id}',
    operationId: 'deleteUser',
    summary: 'Remove a person and the keys of that person',
    capability: 'user:write',
    audit: 'admin',
    request: { params: withId },
    responses: { 204: { description: 'The person is gone' }, ...responses },
  }),
  suspendUser: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/users/{id}/suspend',
    operationId: 'suspendUser',
    summary: 'Suspend a person or service account, everywhere within a second',
    capability: 'user:suspend',
    audit: 'admin',
    request: { params: withId, ...because },
    responses: { 200: json(account, 'The suspended account'), ...responses },
  }),
  restoreUser: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/users/{id}/restore',
    operationId: 'restoreUser',
    summary: 'Undo the suspension of a person or service account',
    capability: 'user:suspend',
    audit: 'admin',
    request: { params: withId, ...because },
    responses: { 200: json(account, 'The account'), ...responses },
  }),
  revokeCredential: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/revocations',
    operationId: 'revokeCredential',
    summary: 'Revoke a login session (sid) or a token (jti) before it ends by itself',
    capability: 'user:suspend',
    audit: 'admin',
    request: {
      params: ofTenant,
      ...body(z.object({ kind: z.enum(['session', 'token']), id: z.string().min(1).max(200), reason }).strict()),
    },
    responses: { 200: json(halt, 'Whether it was not revoked before'), ...responses },
  }),
  listServiceAccounts: declareRoute({
    method: 'get',
    path: '/v1/tenants/{tenant}/service-accounts',
    operationId: 'listServiceAccounts',
    summary: 'Service accounts of a tenant, by name',
    capability: 'user:read',
    audit: 'read',
    request: { params: ofTenant, query: page },
    responses: { 200: json(z.object({ serviceAccounts: z.array(account) }), 'A page'), ...responses },
  }),
  putServiceAccount: declareRoute({
    method: 'put',
    path: '/v1/tenants/{tenant}/service-accounts/by-name/{username}',
    operationId: 'putServiceAccount',
    summary: 'Create a service account, or change roles and teams; its name begins with <tenant>-',
    capability: 'user:write',
    audit: 'admin',
    request: { params: ofTenant.extend({ username: name }), ...body(serviceBody) },
    responses: { 200: json(putAccount, 'The service account'), ...account404 },
  }),
  rotateSecret: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/service-accounts/{id}/secret',
    operationId: 'rotateSecret',
    summary: 'Give a service account a new secret; the old one is void at once',
    capability: 'user:write',
    audit: 'admin',
    request: { params: withId },
    responses: { 200: json(putAccount, 'The service account with its new secret'), ...responses },
  }),
  deleteServiceAccount: declareRoute({
    method: 'delete',
    path: '/v1/tenants/{tenant}/service-accounts/{id}',
    operationId: 'deleteServiceAccount',
    summary: 'Remove a service account and its keys',
    capability: 'user:write',
    audit: 'admin',
    request: { params: withId },
    responses: { 204: { description: 'The service account is gone' }, ...responses },
  }),
};

const keys = {
  listApiKeys: declareRoute({
    method: 'get',
    path: '/v1/tenants/{tenant}/api-keys',
    operationId: 'listApiKeys',
    summary: 'API keys of a tenant, newest first, never their secrets',
    capability: 'key:read',
    audit: 'read',
    request: { params: ofTenant, query: z.object({ owner: z.string().max(100).optional() }) },
    responses: { 200: json(z.object({ apiKeys: z.array(apiKey) }), 'The keys'), ...responses },
  }),
  createApiKey: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/api-keys',
    operationId: 'createApiKey',
    summary: 'Make an API key; the answer shows its secret, once',
    capability: 'key:write',
    audit: 'admin',
    request: {
      params: ofTenant,
      headers: z.object({ 'idempotency-key': z.string().min(1).max(128).optional() }),
      ...body(
        z
          .object({
            owner: z.string().min(1).max(100),
            name: z.string().trim().min(1).max(100),
            scopes: z.array(capability).min(1).max(50),
            days: z.int().min(1).max(longestLife).default(90),
          })
          .strict(),
      ),
    },
    responses: {
      201: json(z.object({ key: apiKey, secret: z.string() }), 'The key with its secret'),
      ...responses,
      409: failed('The idempotency key made a key before'),
    },
  }),
  revokeApiKey: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/api-keys/{id}/revoke',
    operationId: 'revokeApiKey',
    summary: 'Revoke an API key, everywhere at once',
    capability: 'key:write',
    audit: 'admin',
    request: { params: withId, ...because },
    responses: { 200: json(apiKey, 'The revoked key'), ...responses },
  }),
  verifyApiKey: declareRoute({
    method: 'post',
    path: '/v1/api-keys/verify',
    operationId: 'verifyApiKey',
    summary: 'Whom an API key stands for; for workloads that admit keys',
    capability: 'key:verify',
    audit: 'none',
    request: body(z.object({ key: z.string().max(200) }).strict()),
    responses: {
      200: json(
        z.object({
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
        }),
        'The holder; null when there is no such key that is good now',
      ),
      ...responses,
    },
  }),
};

const trainings = {
  getTraining: declareRoute({
    method: 'get',
    path: '/v1/tenants/{tenant}/training',
    operationId: 'getTraining',
    summary: 'Training mode and the proposal that waits',
    capability: 'training:read',
    audit: 'none',
    request: { params: ofTenant },
    responses: { 200: json(training, 'The training mode'), ...responses },
  }),
  proposeUnlock: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/training/proposals',
    operationId: 'proposeUnlock',
    summary: 'Propose to unlock training; somebody else has to approve',
    capability: 'training:propose',
    audit: 'admin',
    request: {
      params: ofTenant,
      ...body(
        z
          .object({
            reason,
            seconds: z
              .int()
              .min(proposalSeconds.shortest)
              .max(proposalSeconds.longest)
              .default(proposalSeconds.default),
          })
          .strict(),
      ),
    },
    responses: { 200: json(proposal, 'The open proposal'), ...responses, 409: failed('Another one is open') },
  }),
  approveUnlock: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/training/proposals/{id}/approve',
    operationId: 'approveUnlock',
    summary: 'Approve a proposal of another person: training is unlocked',
    capability: 'training:approve',
    audit: 'admin',
    request: { params: ofTenant.extend({ id: z.uuid() }) },
    responses: { 200: json(training, 'Unlocked'), ...responses, 409: failed('Decided or run out') },
  }),
  lockTraining: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/training/lock',
    operationId: 'lockTraining',
    summary: 'Lock training at once and withdraw an open proposal',
    capability: 'training:propose',
    audit: 'admin',
    request: { params: ofTenant, ...because },
    responses: { 200: json(training, 'Locked'), ...responses },
  }),
};

const controls = {
  getControl: declareRoute({
    method: 'get',
    path: '/v1/control',
    operationId: 'getControl',
    summary: 'What is halted, suspended and unlocked: everything for operators, for others what concerns their tenant',
    capability: 'control:read',
    audit: 'none',
    responses: { 200: json(control, 'The control state'), ...responses },
  }),
  streamControl: declareRoute({
    method: 'get',
    path: controlPath,
    operationId: 'streamControl',
    summary: 'The control state and each change of it, for workloads',
    capability: 'control:read',
    audit: 'none',
    responses: {
      200: {
        description: 'Events `snapshot` and `heartbeat`',
        content: { 'text/event-stream': { schema: z.string() } },
      },
      ...responses,
    },
  }),
  haltAll: declareRoute({
    method: 'post',
    path: '/v1/control/halt',
    operationId: 'haltAll',
    summary: 'Stop all agent work of everybody',
    capability: 'control:halt',
    audit: 'admin',
    request: because,
    responses: { 200: json(halt, 'Whether it ran before'), ...responses },
  }),
  resumeAll: declareRoute({
    method: 'post',
    path: '/v1/control/resume',
    operationId: 'resumeAll',
    summary: 'Undo the halt of everybody; a tenant that was halted by itself stays so',
    capability: 'control:halt',
    audit: 'admin',
    request: because,
    responses: { 200: json(halt, 'Whether it was halted before'), ...responses },
  }),
  haltTenant: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/halt',
    operationId: 'haltTenant',
    summary: 'Stop all agent work of a tenant',
    capability: 'control:halt',
    audit: 'admin',
    request: { params: ofTenant, ...because },
    responses: { 200: json(halt, 'Whether it ran before'), ...responses },
  }),
  resumeTenant: declareRoute({
    method: 'post',
    path: '/v1/tenants/{tenant}/resume',
    operationId: 'resumeTenant',
    summary: 'Undo the halt of a tenant',
    capability: 'control:halt',
    audit: 'admin',
    request: { params: ofTenant, ...because },
    responses: { 200: json(halt, 'Whether it was halted before'), ...responses },
  }),
  reportDifferences: declareRoute({
    method: 'get',
    path: '/v1/reconciliation',
    operationId: 'reportDifferences',
    summary: 'Differences between Keycloak and the platform',
    // Of operators alone: it shows every tenant.
    capability: 'tenant:write',
    audit: 'none',
    responses: { 200: json(report, 'The differences'), ...responses },
  }),
  repairDifferences: declareRoute({
    method: 'post',
    path: '/v1/reconciliation',
    operationId: 'repairDifferences',
    summary: 'Repair the differences between Keycloak and the platform',
    capability: 'tenant:write',
    audit: 'admin',
    responses: { 200: json(report, 'What was found and repaired'), ...responses },
  }),
};

/** Every route of the API, once. */
export const routes = { ...tenants, ...users, ...keys, ...trainings, ...controls, getOpenApi: openApiRoute };

/** The routes by their operation. */
export type Routes = typeof routes;
