export { IdentityApiKeys, type IdentityApiKeysOptions } from './api-keys.ts';
export {
  createGovernedApp,
  type DeclaredRoutes,
  type GovernedApp,
  type GovernedAppOptions,
  type Handlers,
} from './app.ts';
export {
  type ApiKeyVerifier,
  type Authentication,
  authenticate,
  type TokenRules,
  TokenVerifier,
  type TokenVerifierOptions,
} from './authentication.ts';
export { type Caller, type CallerKind, platformTenant, tenantOrNull } from './caller.ts';
export {
  limitsOf,
  type QuotaConfig,
  quotaVariables,
  type UserTokenConfig,
  userTokens,
  userTokenVariables,
} from './config.ts';
export type { GovernedEnv } from './exchange.ts';
export { bodyLimitBytes, type GovernanceOptions } from './govern.ts';
export { IssuerKeys, type IssuerKeysOptions } from './issuer-keys.ts';
export type {
  ControlState,
  FollowedControlState,
  LimitReached,
  PolicyEngine,
  PolicyInput,
  PolicyVerdict,
  Quota,
  RelationChecker,
  VerdictRecord,
  VerdictSink,
} from './neighbours.ts';
export { Problem, type ProblemKind, type ProblemType, problemOf } from './problem.ts';
export { type Limit, PostgresQuota, type PostgresQuotaOptions } from './quota.ts';
export { type QuotaTables, quotaMigration } from './quota-migration.ts';
export {
  type AuditClass,
  body,
  commonResponses,
  type DeclaredRoute,
  declareRoute,
  failed,
  json,
  openApiRoute,
  type PathValues,
  type RouteGovernance,
  type RouteRelation,
} from './route.ts';
export type { ListedRoute } from './route-list.ts';
export { type GovernedServer, type ServeOptions, serveGoverned } from './server.ts';
export { followStanding, followWork, type Standing, WorkEnded } from './standing.ts';
export { KafkaVerdictSink, type VerdictEvent, type VerdictSinkOptions, verdictEvent } from './verdict-sink.ts';
