/** Who signs the tokens that the registry admits, and for whom; the command `schemas` of bootstrap makes them. */
const token = { issuer: 'somagent-bootstrap', audience: 'schema-registry' } as const;

/** Who signs the tokens of readers, and the one role that they can have; services/analytics/ingest/registry.ts makes them. */
const reading = { issuer: 'somagent-schema-reader', role: 'sr-readonly' } as const;

/** What differs from one server to another. */
export interface ServerSettings {
  /** Address and port to listen on. */
  readonly host: string;
  readonly port: number;
  /** Folder of tls.crt and tls.key. */
  readonly certificateFolder: string;
  /** Folder of the database. */
  readonly dataFolder: string;
}

/**
 * Environment of Apicurio Registry: HTTPS only; every request but health and version by a token of one of the region's
 * two own keys, checked in process; a database of its own in a file. The paths say which key: readers come to
 * Confluent's API in version 6. What their key signs can never be more than `sr-readonly`, whatever stands in it.
 * Source: https://www.apicur.io/registry/docs/apicurio-registry/2.6.x/getting-started/assembly-configuring-the-registry.html
 */
export function serverEnvironment({ host, port, certificateFolder, dataFolder }: ServerSettings) {
  return {
    QUARKUS_HTTP_HOST: host,
    QUARKUS_HTTP_INSECURE_REQUESTS: 'disabled',
    QUARKUS_HTTP_SSL_PORT: String(port),
    QUARKUS_HTTP_SSL_CERTIFICATE_FILES: `${certificateFolder}/tls.crt`,
    QUARKUS_HTTP_SSL_CERTIFICATE_KEY_FILES: `${certificateFolder}/tls.key`,
    QUARKUS_HTTP_SSL_CERTIFICATE_RELOAD_PERIOD: '10m',
    QUARKUS_HTTP_SSL_PROTOCOLS: 'TLSv1.3',
    REGISTRY_AUTH_ENABLED: 'true',
    REGISTRY_AUTH_RBAC_ENABLED: 'true',
    QUARKUS_OIDC_TOKEN_ISSUER: token.issuer,
    QUARKUS_OIDC_TOKEN_AUDIENCE: token.audience,
    QUARKUS_OIDC_ROLES_ROLE_CLAIM_PATH: 'groups',
    QUARKUS_OIDC_READER_TENANT_PATHS: '/apis/ccompat/v6/*',
    QUARKUS_OIDC_READER_TOKEN_ISSUER: reading.issuer,
    QUARKUS_OIDC_READER_TOKEN_AUDIENCE: token.audience,
    QUARKUS_OIDC_READER_ROLES_ROLE_CLAIM_PATH: 'role',
    REGISTRY_DATASOURCE_URL: `jdbc:h2:file:${dataFolder}/registry`,
    QUARKUS_DATASOURCE_JDBC_INITIAL_SIZE: '1',
    QUARKUS_DATASOURCE_JDBC_MIN_SIZE: '1',
    QUARKUS_DATASOURCE_JDBC_MAX_SIZE: '8',
    // The API of Confluent and the registry's own; no pages for people, no imitations of other products.
    REGISTRY_DISABLE_APIS: '/apis/ibmcompat/.*,/apis/cncf/.*,/ui/.*',
    REGISTRY_ENABLE_REDIRECTS: 'false',
    REGISTRY_ALLOW_DYNAMIC_CONFIG: 'false',
    QUARKUS_HTTP_CORS: 'false',
    QUARKUS_BANNER_ENABLED: 'false',
    QUARKUS_CONSOLE_COLOR: 'false',
    // Dates as OpenAPI has them: there are no older clients.
    REGISTRY_APIS_V2_DATE_FORMAT: "yyyy-MM-dd'T'HH:mm:ss'Z'",
  } as const;
}

/** Options of the JVM; the heap in MiB. */
export function javaOptions(heapMegabytes: number): readonly string[] {
  return [
    ...['-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1', `-Xmx${heapMegabytes}m`, '-Xss512k'],
    '-XX:+ExitOnOutOfMemoryError',
    // No identity server: the tokens' key is given. The default is an address of the makers' test environment.
    '-Dquarkus.oidc.auth-server-url=',
    // A token of the readers' key with another role is none. A name with a dash is not found in the environment.
    `-Dquarkus.oidc.reader.token.required-claims.role=${reading.role}`,
    // At its own level it writes out each token that it refuses.
    '-Dquarkus.log.category."io.quarkus.oidc.runtime.OidcProvider".level=WARN',
  ];
}
