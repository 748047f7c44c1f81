/**
 * Rows in ClickHouse's own format of columns, `Native`: the engine takes it as it is, without parsing.
 * Source: https://clickhouse.com/docs/interfaces/formats/Native and ClickHouse's SerializationLowCardinality.cpp.
 */

/** Types that can be written, with what a row has for them. */
export type ColumnType =
  | 'UInt16'
  | 'UInt32'
  | 'UInt64'
  | 'Float64'
  | 'Bool'
  | 'UUID'
  | 'String'
  | 'LowCardinality(String)'
  | 'Array(String)'
  /** Milliseconds since 1970. */
  | "DateTime64(3, 'UTC')"
  | 'Nullable(UInt16)'
  | 'Nullable(Float64)'
  | 'Nullable(UUID)';

/** The columns of a table by name, in the order in which they are sent. */
export type Columns = Readonly<Record<string, ColumnType>>;

type Values = readonly unknown[];

const above32 = 2 ** 32;

/** Bytes of little-endian numbers: of one width, in the order of the machine, which is ClickHouse's too. */
const bytesOf = ({ buffer, byteOffset, byteLength }: ArrayBufferView): Buffer =>
  Buffer.from(buffer as ArrayBuffer, byteOffset, byteLength);

/** Whole numbers of 64 bits, exact up to 2^53: more is refused, because it would be another number. */
function wide(values: Values): Buffer {
  const halves = new Uint32Array(values.length * 2);
  for (let row = 0; row < values.length; row += 1) {
    const value = values[row] as number;
    if (!Number.isSafeInteger(value) || value < 0)
      throw new RangeError(`${value} is no whole number from 0 to 2^53 - 1`);
    halves[2 * row] = value % above32;
    halves[2 * row + 1] = value / above32;
  }
  return bytesOf(halves);
}

/** Whole numbers of 16 or 32 bits: a larger one would come out as another number. */
function narrow(Numbers: typeof Uint16Array | typeof Uint32Array, values: Values): Buffer {
  const numbers = Numbers.from(values as number[]);
  const wrong = numbers.findIndex((number, row) => number !== values[row]);
  if (wrong === -1) return bytesOf(numbers);
  throw new RangeError(`${values[wrong]} is no whole number of ${Numbers.BYTES_PER_ELEMENT * 8} bits`);
}

/** Each UUID is two numbers of 64 bits, the first half of the text first. */
function uuids(values: Values): Buffer {
  const bytes = Buffer.alloc(values.length * 16);
  for (let row = 0; row < values.length; row += 1) {
    const value = values[row] as string | null;
    if (value === null) continue;
    const digits = value.replaceAll('-', '');
    if (digits.length !== 32 || bytes.write(digits, row * 16, 16, 'hex') !== 16)
      throw new RangeError(`${value} is no UUID`);
  }
  return bytes.swap64();
}

/** Texts one after the other, each behind its length. */
class Texts {
  #bytes = Buffer.allocUnsafe(4096);
  #end = 0;

  add(text: string): void {
    const most = text.length * 3 + 5;
    if (this.#end + most > this.#bytes.length) this.#grow(most);
    // Where every text of this length needs one byte for it, the text is written once, behind that byte.
    if (text.length * 3 < 128) {
      const length = this.#bytes.write(text, this.#end + 1);
      this.#bytes[this.#end] = length;
      this.#end += length + 1;
    } else {
      this.length(Buffer.byteLength(text));
      this.#end += this.#bytes.write(text, this.#end);
    }
  }

  /** A number in pieces of seven bits. */
  length(count: number): void {
    if (this.#end + 5 > this.#bytes.length) this.#grow(5);
    let left = count;
    for (; left > 127; left = Math.floor(left / 128)) this.#bytes[this.#end++] = (left % 128) | 128;
    this.#bytes[this.#end++] = left;
  }

  get bytes(): Buffer {
    return this.#bytes.subarray(0, this.#end);
  }

  #grow(more: number): void {
    const larger = Buffer.allocUnsafe(Math.max(this.#bytes.length * 2, this.#end + more));
    this.#bytes.copy(larger, 0, 0, this.#end);
    this.#bytes = larger;
  }
}

function strings(values: Values): Buffer {
  const texts = new Texts();
  for (const value of values) texts.add(value as string);
  return texts.bytes;
}

/** Lists: where each ends, then what they have. */
function lists(values: Values): readonly Buffer[] {
  let end = 0;
  const ends = values.map((value) => {
    end += (value as Values).length;
    return end;
  });
  return [wide(ends), strings(values.flat())];
}

/** Indexes of 32 bits, with keys of this block's own. */
const ownKeys = 2 | (1 << 9) | (1 << 10);

/** Each different text once, and a number per row. */
function dictionary(values: Values): readonly Buffer[] {
  // The first key is the default of the type.
  const places = new Map<unknown, number>([['', 0]]);
  const indexes = new Uint32Array(values.length);
  for (let row = 0; row < values.length; row += 1) {
    const value = values[row];
    const place = places.get(value) ?? places.size;
    if (place === places.size) places.set(value, place);
    indexes[row] = place;
  }
  if (values.length === 0) return [];
  const head = wide([1, ownKeys, places.size]);
  return [head, strings([...places.keys()]), wide([values.length]), bytesOf(indexes)];
}

const nulls = (values: Values): Buffer => Buffer.from(values.map((value) => (value === null ? 1 : 0)));
const zeroed = (values: Values): number[] => values.map((value) => (value ?? 0) as number);

const encoders: { readonly [Type in ColumnType]: (values: Values) => readonly Buffer[] } = {
  UInt16: (values) => [narrow(Uint16Array, values)],
  UInt32: (values) => [narrow(Uint32Array, values)],
  UInt64: (values) => [wide(values)],
  Float64: (values) => [bytesOf(Float64Array.from(values as number[]))],
  Bool: (values) => [Buffer.from(values.map(Number))],
  UUID: (values) => [uuids(values)],
  String: (values) => [strings(values)],
  'LowCardinality(String)': dictionary,
  'Array(String)': lists,
  "DateTime64(3, 'UTC')": (values) => [wide(values)],
  'Nullable(UInt16)': (values) => [nulls(values), narrow(Uint16Array, zeroed(values))],
  'Nullable(Float64)': (values) => [nulls(values), bytesOf(Float64Array.from(zeroed(values)))],
  'Nullable(UUID)': (values) => [nulls(values), uuids(values)],
};

/**
 * Rows as one block.
 * @throws RangeError when a value is beyond what its column takes
 */
export function encodeNative(columns: Columns, rows: readonly Readonly<Record<string, unknown>>[]): Buffer {
  const head = new Texts();
  head.length(Object.keys(columns).length);
  head.length(rows.length);
  const parts: Buffer[] = [head.bytes];
  for (const [name, type] of Object.entries(columns)) {
    parts.push(strings([name, type]));
    parts.push(...encoders[type](rows.map((row) => row[name])));
  }
  return Buffer.concat(parts);
}
