import type { OpenAPIHono } from '@hono/zod-openapi';
import type { GovernedEnv } from './exchange.ts';
import type { HandlerRoutes } from './govern.ts';
import type { AuditClass } from './route.ts';

/** A route as the router knows it. */
export interface ListedRoute {
  readonly method: string;
  /** Template, e.g. `/v1/sessions/{id}`. */
  readonly path: string;
  /** Null when it was not declared, as all of the following. */
  readonly operationId: string | null;
  readonly capability: string | null;
  readonly relation: string | null;
  readonly audit: AuditClass | null;
}

/**
 * Lists what the router would call, from the router itself: what was added past the declarations is in the list too,
 * without a capability.
 * @param governed how many entries the router had when the application was made: declared handlers with their
 *   validators, and the middleware.
 */
export function listRoutes(
  hono: OpenAPIHono<GovernedEnv>,
  declared: HandlerRoutes,
  governed: number,
): readonly ListedRoute[] {
  return hono.routes.flatMap(({ method, path, handler }, index) => {
    const route = declared.get(handler);
    if (route === undefined && index < governed) return [];
    return {
      method,
      path: path.replaceAll(/:(\w+)(\{[^}]*\})?/g, '{$1}'),
      operationId: route?.operationId ?? null,
      capability: route?.capability ?? null,
      relation: route?.relation?.relation ?? null,
      audit: route?.audit ?? null,
    };
  });
}
