import { OpenAPIHono } from '@hono/zod-openapi';
import type { DeclaredRoute } from './route.ts';

/** The OpenAPI 3.1 document of declared routes. */
export function openApiDocument(title: string, routes: Readonly<Record<string, DeclaredRoute>>) {
  const { openAPIRegistry: registry, getOpenAPI31Document } = new OpenAPIHono();
  registry.registerComponent('securitySchemes', 'bearer', { type: 'http', scheme: 'bearer', bearerFormat: 'JWT' });
  for (const route of Object.values(routes)) registry.registerPath(route);
  // Through JSON, because the typed document has no index signature.
  return JSON.parse(JSON.stringify(getOpenAPI31Document({ openapi: '3.1.0', info: { title, version: '1' } })));
}
