export { type RegisteredSchemas, SchemaRegistry, type SchemaRegistryProps } from './schema-registry.ts';
