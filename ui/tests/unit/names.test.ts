import { test } from 'vitest';
import { fitName, tailStart } from '../../src/flamegraph/names';
import { check } from './check';

test('the function begins after path, assembly or outer modules', () => {
  const cases: [string, string][] = [
    ['runtime.mallocgc', 'runtime.mallocgc'],
    ['net/http.(*conn).serve', 'http.(*conn).serve'],
    ['slices.Sort[go.shape.[]github.com/a/b.T]', 'slices.Sort[go.shape.[]github.com/a/b.T]'],
    ['System.Threading!Thread.Start<a/b>', 'Thread.Start<a/b>'],
    ['com.acme.shop.Cart$Line.total', 'Cart$Line.total'],
    ['com.acme.shop.main', 'com.acme.shop.main'],
    ['fmt.Sprintf', 'fmt.Sprintf'],
    ['alloc::vec::Vec::push', 'Vec::push'],
    ['std::main', 'std::main'],
    ['<T as core::fmt::Debug>::fmt', 'fmt'],
    ['<alloc::boxed::Box<dyn Fn(u8) -> u8> as Send>::run::{{closure}}', 'run::{{closure}}'],
    ['<module>', '<module>'],
    ['<a>::', '<a>::'],
    ['<unclosed::x', '<unclosed::x'],
    ['app/views.py:10 - a/b', 'views.py:10 - a/b'],
    ['trailing/', 'trailing/'],
    ['', ''],
  ];
  for (const [name, expected] of cases) check(name, name.slice(tailStart(name)), expected);
});

test('a name that does not fit loses its path first, then its end', () => {
  const name = 'net/http.(*conn).serve';
  check(40, fitName(name, 40), name);
  check(20, fitName(name, 20), 'http.(*conn).serve');
  check(8, fitName(name, 8), 'http.(*…');
  check(1, fitName('abc', 1), '');
  const method = '<&mut hyper::proto::h1::Conn<I,B> as core::future::Future>::poll';
  check(12, fitName(method, 12), 'Conn::poll');
  check(8, fitName(method, 8), 'poll');
  check(10, fitName('<[u8] as io::Read>::read', 10), 'read');
  check(9, fitName('<unclosed::x', 9), '<unclose…');
});
