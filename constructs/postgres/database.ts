import type { Endpoint, PodNetwork } from '../core/pod-network.ts';
import type { SecretPlan, SecretRef } from '../core/secret-plan.ts';
import { InvalidPropError } from '../core/validate.ts';
import type { Connectable, Connection } from '../core/workload.ts';

/** A database and its owner. */
export interface DatabaseProps {
  /** Name of the database: a plain SQL identifier. */
  readonly name: string;
  /** Role that owns it and connects to it; several databases may have the same owner. */
  readonly owner: string;
  /**
   * Further roles that may connect. They own nothing: the owner's migrations grant them what they may read.
   * @default none
   */
  readonly readers?: readonly string[];
}

/** What a database needs of its server. */
interface Server extends Endpoint {
  readonly plan: SecretPlan;
}

/** One database of a {@link Postgres}: what an application is wired to. */
export class Database implements Connectable, Endpoint {
  readonly name: string;
  readonly owner: string;
  readonly host: string;
  readonly port: number;
  readonly network: PodNetwork;
  /** Further roles that may connect. */
  readonly readers: readonly string[];
  readonly #plan: SecretPlan;
  readonly #instance: string;

  constructor(server: Server, instance: string, props: DatabaseProps) {
    this.name = props.name;
    this.owner = props.owner;
    this.host = server.host;
    this.port = server.port;
    this.network = server.network;
    this.#plan = server.plan;
    this.readers = props.readers ?? [];
    this.#instance = instance;
  }

  /** User name and password of a role, the owner's by default, in a namespace. */
  credentials(namespace: string, role = this.owner): SecretRef {
    // Underscores are usual in SQL and not admitted in names of Kubernetes.
    return this.#plan.password(`${this.#instance}-role-${role.replaceAll('_', '-')}`, role, namespace);
  }

  /** The certificate that the server's one is verified against, in a namespace. */
  authority(namespace: string): SecretRef {
    return this.#plan.authorityCertificate(namespace);
  }

  /** Admits the client and gives it libpq's variables, its credentials below /secrets/postgres, and the authority. */
  connect(client: PodNetwork): Connection {
    return this.#connectAs(client, this.owner);
  }

  /** The database for a client that is only one of its readers. */
  reader(role: string): Connectable {
    if (!this.readers.includes(role)) {
      throw new InvalidPropError(
        `reader of database ${this.name}`,
        role,
        this.readers.join(', ') || 'none is declared',
        'Name it in `readers` of the database.',
      );
    }
    return { connect: (client) => this.#connectAs(client, role) };
  }

  #connectAs(client: PodNetwork, role: string): Connection {
    client.allowTo(this.network, [this.port]);
    return {
      env: {
        PGHOST: this.host,
        PGPORT: String(this.port),
        PGDATABASE: this.name,
        PG_CREDENTIALS_DIR: '/secrets/postgres',
        PG_CA_FILE: '/secrets/ca/ca.crt',
      },
      secrets: [
        { path: '/secrets/postgres', secret: this.credentials(client.namespace, role) },
        { path: '/secrets/ca', secret: this.authority(client.namespace) },
      ],
    };
  }
}

/** The plan of the `databases` Job, as JSON. */
export function databaseDeclaration(databases: readonly DatabaseProps[]): string {
  const plan = databases.map(({ name, owner, readers = [] }) => ({
    name,
    owner,
    ...(readers.length > 0 && { readers }),
  }));
  return JSON.stringify({ databases: plan }, undefined, 2);
}
