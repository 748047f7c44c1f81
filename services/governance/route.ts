import { createRoute, type RouteConfig, z } from '@hono/zod-openapi';
import type { Caller } from './caller.ts';
import type { Problem } from './problem.ts';

/** How an action on a route is recorded in the audit log: changes always are, reads where they are sensitive. */
export type AuditClass = 'none' | 'read' | 'write' | 'admin';

/** Values of the path parameters, validated. */
export type PathValues = Readonly<Record<string, string>>;

/** What OpenFGA must say about the caller and one object before a request passes. */
export interface RouteRelation {
  /** A relation of the model, e.g. `can_use`. */
  readonly relation: string;
  /** The object, e.g. `session:acme/3f…`. */
  readonly object: (params: PathValues, caller: Caller) => string;
}

/** What a route declares beside its schemas. */
export interface RouteGovernance {
  /** `<noun>:<verb>`. The noun is the type of the resource. */
  readonly capability: string;
  readonly audit: AuditClass;
  /** @default no relation is asked for */
  readonly relation?: RouteRelation;
  /** Largest body of a request, bytes. @default 65536 */
  readonly bodyLimit?: number;
  /** How every refusal on the route is shown, for an API whose clients expect their own form. @default RFC 9457 */
  readonly showProblem?: (problem: Problem, requestId: string) => Response;
}

/** Extensions of the OpenAPI document that say what governs a route. */
interface Extensions {
  readonly [name: `x-${string}`]: unknown;
}

const capabilityPattern = /^[a-z][a-z-]*:[a-z][a-z-]*$/;
const governanceFields = ['capability', 'audit', 'relation', 'bodyLimit', 'showProblem'] as const;

/**
 * Declares a route once: method, path, schemas, capability, relation and audit class. From it come the server, the
 * OpenAPI document, the SDK, the policy input and the coverage report. A path parameter `id` names the resource, and
 * `tenant` the tenant it belongs to (without one: the caller's own).
 * @throws Error on an incomplete declaration.
 */
export function declareRoute<
  Path extends string,
  Route extends Omit<RouteConfig, 'path'> & { path: Path; operationId: string },
>(declaration: Route & RouteGovernance) {
  const { capability, audit, relation, bodyLimit: _limit, showProblem: _show, ...route } = declaration;
  if (!capabilityPattern.test(capability)) {
    throw new Error(
      `route ${route.operationId}: capability is "${capability}": write <noun>:<verb>, e.g. session:read`,
    );
  }
  const config = route as unknown as RouteConfig;
  const created = createRoute({
    ...config,
    security: [{ bearer: [] }],
    'x-capability': capability,
    'x-audit': audit,
    ...(relation && { 'x-relation': relation.relation }),
  });
  // Not enumerable, so that they stay out of the OpenAPI document.
  for (const field of governanceFields) Object.defineProperty(created, field, { value: declaration[field] });
  return created as unknown as Route & RouteGovernance & Extensions;
}

/** A declared route, whatever its schemas. */
export type DeclaredRoute = RouteConfig & RouteGovernance & { readonly operationId: string };

const problem = z
  .object({ type: z.string(), title: z.string(), status: z.int(), detail: z.string(), requestId: z.string() })
  .openapi('Problem');

/** Describes an answer of JSON. */
export const json = <Schema extends z.ZodType>(schema: Schema, description: string) => ({
  description,
  content: { 'application/json': { schema } },
});

/** Describes a required body of JSON. */
export const body = <Schema extends z.ZodType>(schema: Schema) => ({
  body: { required: true, content: { 'application/json': { schema } } },
});

/** Describes a refusal. */
export const failed = (description: string) => ({
  description,
  content: { 'application/problem+json': { schema: problem } },
});

/** What every governed route can answer with. */
export const commonResponses = {
  400: failed('The request is not valid'),
  401: failed('No token, or one that is not accepted'),
  403: failed('The policy does not allow this, or the caller is suspended or has no tenant'),
  413: failed('The request is too large'),
  415: failed('The body is not JSON'),
  423: failed('Agent work is halted'),
  429: failed('Too many requests'),
  503: failed('A part of the platform does not answer'),
};

/** Every service describes itself; part of the routes of each. */
export const openApiRoute = declareRoute({
  method: 'get',
  path: '/openapi.json',
  operationId: 'getOpenApi',
  summary: 'This API as an OpenAPI 3.1 document',
  capability: 'api:describe',
  audit: 'none',
  responses: { 200: json(z.record(z.string(), z.unknown()), 'The document'), ...commonResponses },
});
